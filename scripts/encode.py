"""Codes, scores and clusters of new data from a finished run: `python scripts/encode.py --help`."""

from research.app import encode
from research.command import run

if __name__ == "__main__":
    run(encode)
