"""Temporal Schedules: made from the table of cadences, shown and operated. Workflows are known by name only."""
