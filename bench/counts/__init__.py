"""Counts that do not depend on the machine, compared with those of the last release: `python -m bench.counts`."""
