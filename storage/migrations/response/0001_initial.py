"""The response network's own tables."""

from alembic import op

revision = "response_1"
down_revision = None
branch_labels = ("response",)
depends_on = None

TABLES = """
CREATE TABLE settings (
    name        text PRIMARY KEY,
    value       jsonb NOT NULL,
    visibility  text NOT NULL CHECK (visibility IN ('public', 'secret')),
    version     integer NOT NULL DEFAULT 1,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    updated_by  text NOT NULL
);

CREATE TABLE request_types (
    name           text PRIMARY KEY,
    version        integer NOT NULL DEFAULT 1,
    description    text NOT NULL DEFAULT '',
    params_schema  jsonb NOT NULL,
    limits         jsonb NOT NULL,
    executor       jsonb NOT NULL,
    retired_at     timestamptz,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    updated_by     text NOT NULL
);
COMMENT ON COLUMN request_types.executor IS 'Never crosses the link';

CREATE TABLE users (
    user_id     uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    role        text NOT NULL CHECK (role IN ('user', 'operator')),
    active      boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    sha256      bytea PRIMARY KEY,
    user_id     uuid NOT NULL REFERENCES users,
    label       text NOT NULL DEFAULT '',
    active      boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE api_keys IS 'Only the SHA-256 of a key is stored';

CREATE TABLE requests (
    request_id    uuid PRIMARY KEY,
    user_id       uuid NOT NULL,
    type          text NOT NULL,
    priority      smallint NOT NULL,
    params        bytea NOT NULL,
    submitted_at  timestamptz NOT NULL,
    deadline_at   timestamptz,
    epoch         integer NOT NULL,
    sequence      bigint NOT NULL,
    received_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX requests_by_batch ON requests (epoch, sequence);
CREATE INDEX requests_by_age ON requests (received_at);

CREATE TABLE cancellations (
    request_id    uuid PRIMARY KEY,
    cancelled_at  timestamptz NOT NULL
);

CREATE TABLE results (
    request_id   uuid PRIMARY KEY,
    type         text NOT NULL,
    status       text NOT NULL,
    reason       text,
    returned     integer NOT NULL,
    total        bigint,
    duration_ms  double precision,
    body         bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX results_by_age ON results (created_at);

CREATE TABLE link_attempts (
    stream         text PRIMARY KEY,
    tried_at       timestamptz NOT NULL,
    ok_at          timestamptz,
    failing_since  timestamptz,
    failures       integer NOT NULL DEFAULT 0,
    kind           text,
    detail         text,
    wait_until     timestamptz,
    clock_ahead    double precision
);
COMMENT ON TABLE link_attempts IS 'The outcome of the last attempts to use the link, for alarms';
COMMENT ON COLUMN link_attempts.failures IS 'In a row. A success clears it, with failing_since, kind and detail';
COMMENT ON COLUMN link_attempts.clock_ahead IS 'Seconds by which the other side''s clock is ahead of ours';

CREATE TABLE measurements (
    measured_at  timestamptz PRIMARY KEY,
    body         jsonb NOT NULL
);

"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a downgrade would delete settings and results: restore a backup instead")
