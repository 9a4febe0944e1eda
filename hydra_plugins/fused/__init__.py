"""Hydra launcher and sweeper that train jobs of equal structure as one program."""
