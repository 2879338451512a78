"""Metrics that lack the same are told in one line, in the order they came in."""

from __future__ import annotations

from bcd_bench.scoring.missing_metrics import by_reason, not_scored, these_metrics

LACKING = [("fid", "no weights"), ("csim", "no model"), ("kid", "no weights"), ("fid", "no weights")]


def test_each_metric_stands_once_under_what_it_lacks() -> None:
    assert by_reason(LACKING) == {"no weights": ["fid", "kid"], "no model": ["csim"]}
    assert list(by_reason(reversed(LACKING))) == ["no weights", "no model"]
    assert by_reason([]) == {}
    assert by_reason([("fid", ("no weights", "fetch them"))]) == {("no weights", "fetch them"): ["fid"]}


def test_lines_count_their_metrics() -> None:
    assert not_scored(LACKING) == [
        "metrics fid, kid were not scored: no weights",
        "metric csim was not scored: no model",
    ]
    assert these_metrics(["fid"]) == "metric fid"
    assert not_scored([]) == []
