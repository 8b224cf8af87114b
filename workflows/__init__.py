"""Workflows: deterministic decisions without I/O. `activities` does the work."""
