"""Measurements: each figure of Airlock beside its limit and beside Celery doing the same job.

`figures.py` defines a figure, `catalogue.py` lists them, `load/` is the load generator, `plain/` is the limit of the
figures that use HTTP, `celery/` is the rival.
"""
