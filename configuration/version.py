"""Airlock's version. Workers report it to Temporal, and the APIs to their callers."""

VERSION = "0.1.0"
