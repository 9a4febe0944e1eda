"""Reading files: what a file holds, before anything decides what it is used for."""
