"""Train one run, or with -m a sweep: `python scripts/train.py --help`."""

from research.app import main
from research.command import run

if __name__ == "__main__":
    run(main)
