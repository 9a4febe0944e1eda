"""Proof of a sweep: whole files, runs trained again, divergences replayed: `python scripts/verify.py --help`."""

from research.command import run
from research.sweep.proof.verify import main

if __name__ == "__main__":
    run(main)
