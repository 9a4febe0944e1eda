"""One command: check everything (`prepare.prepare`), then train (`run.run`)."""
