"""Tables of a sweep: `python scripts/report.py outputs/NAME` (see `--help`)."""

from research.command import run
from research.report.cli import main

if __name__ == "__main__":
    run(main)
