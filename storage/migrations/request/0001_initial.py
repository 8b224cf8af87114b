"""The request network's own tables."""

from alembic import op

revision = "request_1"
down_revision = None
branch_labels = ("request",)
depends_on = None

TABLES = """
CREATE TABLE requests (
    request_id    uuid PRIMARY KEY,
    user_id       uuid NOT NULL,
    type          text NOT NULL,
    name          text,
    priority      smallint NOT NULL,
    params        bytea NOT NULL,
    callback_url  text,
    submitted_at  timestamptz NOT NULL,
    deadline_at   timestamptz,
    epoch         integer NOT NULL,
    sequence      bigint NOT NULL,
    closed        text CHECK (closed IN ('expired', 'cancelled')),
    closed_at     timestamptz,
    callback_at   timestamptz,
    callback_lost text,
    callback_attempts integer NOT NULL DEFAULT 0,
    callback_after timestamptz
);
CREATE INDEX requests_by_user ON requests (user_id, request_id DESC);
CREATE INDEX requests_by_group ON requests (epoch, sequence);
COMMENT ON COLUMN requests.sequence IS 'The batch of the requests stream in which it was sealed: its group';
COMMENT ON COLUMN requests.closed IS 'Why it ended without a result';
CREATE INDEX requests_to_call_back ON requests (request_id)
    WHERE callback_url IS NOT NULL AND callback_at IS NULL;
COMMENT ON COLUMN requests.callback_after IS 'When the next attempt may be made, after failed ones';
COMMENT ON COLUMN requests.callback_at IS 'When the callback was delivered or, with callback_lost, given up';

CREATE TABLE request_groups (
    epoch         integer NOT NULL,
    sequence      bigint NOT NULL,
    size          integer NOT NULL,
    submitted_at  timestamptz NOT NULL DEFAULT now(),
    seen_at       timestamptz,
    fulfilled_at  timestamptz,
    PRIMARY KEY (epoch, sequence)
);
CREATE INDEX request_groups_open ON request_groups (epoch, sequence) WHERE fulfilled_at IS NULL;
COMMENT ON COLUMN request_groups.seen_at IS 'When a workflow last looked at this group; NULL before the first look';

CREATE TABLE attendances (
    subject         text PRIMARY KEY,
    attendant       text NOT NULL,
    attended_until  timestamptz NOT NULL
);
COMMENT ON TABLE attendances IS 'The workflow run that applies results, or makes callbacks, and the end of its lease';

CREATE TABLE idempotency_keys (
    user_id      uuid NOT NULL,
    key          text NOT NULL,
    fingerprint  bytea NOT NULL,
    request_ids  uuid[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE results (
    request_id     uuid PRIMARY KEY,
    user_id        uuid NOT NULL,
    status         text NOT NULL,
    body           bytea NOT NULL,
    epoch          integer NOT NULL,
    sequence       bigint NOT NULL,
    received_at    timestamptz NOT NULL DEFAULT now(),
    first_read_at  timestamptz
);
CREATE INDEX results_by_batch ON results (epoch, sequence);
COMMENT ON COLUMN results.body IS 'The record as it crossed, byte for byte';
COMMENT ON COLUMN results.first_read_at IS 'Recorded within about a second of the read; NULL if the result was never
read, or if the process ended before it was recorded';

CREATE TABLE snapshots (
    stream      text PRIMARY KEY,
    epoch       integer NOT NULL,
    sequence    bigint NOT NULL,
    sealed_at   timestamptz NOT NULL,
    records     bytea NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE snapshots IS 'The newest snapshot of each snapshot stream, as NDJSON, byte for byte';
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a downgrade would delete requests and results: restore a backup instead")
