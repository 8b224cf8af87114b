"""FastAPI: one app per network, routers by concern."""
