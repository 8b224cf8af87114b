"""Temporal Schedules: made from the table of cadences, looked at and operated. Knows workflows by name only."""
