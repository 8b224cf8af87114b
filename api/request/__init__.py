"""The request network's API: people submit requests and read results here; the other network comes by the link."""

from api.request.app import create_app

__all__ = ["create_app"]
