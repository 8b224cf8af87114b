"""The same work as plainly as one writes it: FastAPI routes on the same server, one INSERT per call, no orchestration.

It is the limit of the figures that ask by HTTP. It checks no key, seals nothing, crosses no link and proves nothing.
"""
