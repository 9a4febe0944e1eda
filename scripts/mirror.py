"""Copies of finished runs in MLflow or Weights & Biases: `python scripts/mirror.py --help`."""

from research.command import run
from research.mirror import main

if __name__ == "__main__":
    run(main)
