"""The response network's API, for its operators."""

from api.response.app import create_app

__all__ = ["create_app"]
