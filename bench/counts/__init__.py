"""Counts that do not depend on the machine, compared with the last release's: `python -m bench.counts`."""
