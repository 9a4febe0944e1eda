"""Reports: collect the runs of a sweep folder, summarize them in a table, render it (see `scripts/report.py`)."""
