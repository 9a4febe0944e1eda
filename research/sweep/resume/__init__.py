"""The record of a sweep on disk, and how a later command continues it. Start with `manifest.py`."""
