"""Codes, scores and clusters of new data from a finished run: `python scripts/encode.py --help`."""

from research.command import run
from research.encode import main

if __name__ == "__main__":
    run(main)
