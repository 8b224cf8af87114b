"""The request network's API: for callers, who submit requests and read results, and for the link."""

from api.request.app import create_app

__all__ = ["create_app"]
