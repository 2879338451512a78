"""For plugin authors: the conformance kit, synthetic test clips, and pytest fixtures.

@parametrize_with_checks("my-plugin")
def test_conformance(check):
    check()
"""

from bcd_bench.testing.kit import Check, checks_for, parametrize_with_checks
from bcd_bench.testing.synthetic import Cut, draw, practice_pairs

__all__ = ["Check", "Cut", "checks_for", "draw", "parametrize_with_checks", "practice_pairs"]
