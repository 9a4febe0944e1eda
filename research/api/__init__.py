"""Training and comparing runs from Python; a user calls these functions as `research.train`, `research.sweep`, ..."""
