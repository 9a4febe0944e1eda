"""Codes, scores and clusters of new data from a finished run: `python scripts/encode.py --help`."""

from research.app import encode

if __name__ == "__main__":
    encode()
