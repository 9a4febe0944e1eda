"""Proof that a finished sweep is intact and can be repeated. Start with `verify.main`."""
