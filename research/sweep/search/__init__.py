"""A search: points of a space are chosen in batches, and every batch is trained as a sweep."""
