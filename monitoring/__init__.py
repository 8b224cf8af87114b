"""Measurements, alerts, retention, and workflows that are stuck."""
