"""The response network's API, for its operators: settings, request types, results, streams, schedules, health."""

from api.response.app import create_app

__all__ = ["create_app"]
