"""The folder of a run, its TensorBoard events, the lease on a folder, and loading a finished run."""
