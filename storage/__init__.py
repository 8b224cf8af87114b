"""PostgreSQL: what has happened. Migrations and queries, SQL read as SQL."""
