"""`python -m bcd_bench` is `bcd-bench`."""

from bcd_bench.cli import main

main()
