"""PostgreSQL itself: connections, notices, attendance, migrations."""
