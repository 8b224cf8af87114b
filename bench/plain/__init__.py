"""The same work in the plainest form: FastAPI routes on the same server, one INSERT per call, no orchestration.

It is the limit of the figures that use HTTP. It checks no key, seals nothing and crosses no link.
"""
