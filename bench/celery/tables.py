"""The tables of both networks. Instead of batches and chains there are rows with a flag.

Only the report reads `executions` and `arrivals`.
"""

import asyncpg

REQUEST = """
CREATE TABLE requests (
    request_id    uuid PRIMARY KEY,
    type          text NOT NULL,
    params        jsonb NOT NULL,
    submitted_at  timestamptz NOT NULL DEFAULT now(),
    taken_at      timestamptz
);
CREATE INDEX requests_not_taken ON requests (submitted_at) WHERE taken_at IS NULL;
CREATE TABLE idempotency_keys (
    key           text PRIMARY KEY,
    request_ids   uuid[] NOT NULL
);
CREATE TABLE results (
    request_id    uuid PRIMARY KEY REFERENCES requests,
    body          text NOT NULL,
    received_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE arrivals (
    request_id    uuid NOT NULL,
    at            timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE settings (
    name          text PRIMARY KEY,
    value         jsonb NOT NULL,
    version       bigint NOT NULL
);
"""

RESPONSE = """
CREATE TABLE requests (
    request_id    uuid PRIMARY KEY,
    type          text NOT NULL,
    params        jsonb NOT NULL,
    taken_at      timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE results (
    request_id    uuid PRIMARY KEY REFERENCES requests,
    body          text NOT NULL,
    finished_at   timestamptz NOT NULL DEFAULT now(),
    exported      boolean NOT NULL DEFAULT false
);
CREATE INDEX results_not_exported ON results (finished_at) WHERE NOT exported;
CREATE TABLE executions (
    request_id    uuid NOT NULL,
    at            timestamptz NOT NULL DEFAULT now()
);
CREATE SEQUENCE setting_versions;
CREATE TABLE settings (
    name          text PRIMARY KEY,
    value         jsonb NOT NULL,
    visibility    text NOT NULL,
    version       bigint NOT NULL DEFAULT nextval('setting_versions'),
    exported      boolean NOT NULL DEFAULT false
);
"""


async def create_tables(request_url: str, response_url: str) -> None:
    """Create the tables in two empty databases."""
    for url, tables in ((request_url, REQUEST), (response_url, RESPONSE)):
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(tables)
        finally:
            await connection.close()
