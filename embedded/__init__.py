"""`airlock up`: real PostgreSQL, Redis and Temporal servers as supervised child processes, for tests too."""
