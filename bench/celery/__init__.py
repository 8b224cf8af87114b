"""The pipeline that Airlock replaces, built with Celery, Beat and Redis as documented, to be compared with it.

Each module says which network and which virtual environment it runs in: what imports Celery (`app`, `tasks`) runs in
`.venv-celery`, everything else in Airlock's own.
"""
