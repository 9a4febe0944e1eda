"""Train one run, or with -m a sweep: `python scripts/train.py --help`."""

from research.app import main

if __name__ == "__main__":
    main()
