"""Sweeps of jobs: plan, program, training, checkpoints, workers and verification. Read README.md first."""
