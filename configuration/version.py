"""Airlock's version, as workers report it to Temporal and the APIs to their callers."""

VERSION = "0.1.0"
