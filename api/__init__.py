"""The HTTP APIs: one FastAPI app per network."""
