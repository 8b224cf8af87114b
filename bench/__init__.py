"""Measurements: each figure of Airlock beside its limit and beside Celery doing the same job.

`figures.py` says what every figure has in common, `catalogue.py` names them all, `load/` asks, `plain/` is the limit of
the figures that ask by HTTP, `celery/` is the rival.
"""
