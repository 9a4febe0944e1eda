"""Training of the planned groups, from the first step to `result.json`. Start with `units.train`."""
