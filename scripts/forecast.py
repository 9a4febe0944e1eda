"""Forecasts of the steps after the end of a file, from a finished run: `python scripts/forecast.py --help`."""

from research.command import run
from research.forecast import main

if __name__ == "__main__":
    run(main)
