"""The crossing's own tables, the same in both networks."""

from alembic import op

revision = "exchange_0001"
down_revision = None
branch_labels = ("exchange",)
depends_on = None

TABLES = """
CREATE TABLE outgoing_streams (
    stream       text PRIMARY KEY,
    epoch        integer NOT NULL DEFAULT 1,
    sequence     bigint NOT NULL DEFAULT 0,
    record       bigint NOT NULL DEFAULT 0,
    hash         bytea NOT NULL,
    content      bytea,
    delivered    bigint NOT NULL DEFAULT 0,
    applied      bigint NOT NULL DEFAULT 0,
    quarantined  bigint NOT NULL DEFAULT 0,
    receipt_at   timestamptz,
    stopped      text,
    delivering_run text
);
COMMENT ON TABLE outgoing_streams IS 'The sender''s end of each stream: newest batch sealed, how far receipts go';
COMMENT ON COLUMN outgoing_streams.content IS 'SHA-256 of the records of the newest snapshot, to tell change from none';

CREATE TABLE outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream      text NOT NULL,
    body        bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_by_stream ON outbox (stream, id);
COMMENT ON TABLE outbox IS 'Records that are committed and not sealed yet; sealing takes them away';

CREATE TABLE sealed_batches (
    stream        text NOT NULL,
    epoch         integer NOT NULL,
    sequence      bigint NOT NULL,
    first_record  bigint NOT NULL,
    records       integer NOT NULL,
    raw_bytes     integer NOT NULL,
    hash          bytea NOT NULL,
    manifest      bytea NOT NULL,
    signature     bytea NOT NULL,
    payload       bytea,
    sealed_at     timestamptz NOT NULL,
    sent_at       timestamptz,
    delivered_at  timestamptz,
    PRIMARY KEY (stream, epoch, sequence)
);
ALTER TABLE sealed_batches ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX sealed_batches_undelivered ON sealed_batches (stream, epoch, sequence) WHERE delivered_at IS NULL;
COMMENT ON COLUMN sealed_batches.payload IS 'NULL once retention has emptied a delivered batch; the manifest stays';

CREATE TABLE incoming_streams (
    stream        text PRIMARY KEY,
    epoch         integer NOT NULL DEFAULT 1,
    sequence      bigint NOT NULL DEFAULT 0,
    record        bigint NOT NULL DEFAULT 0,
    hash          bytea NOT NULL,
    applied       bigint NOT NULL DEFAULT 0,
    quarantined   bigint NOT NULL DEFAULT 0,
    heard_at      timestamptz,
    sender_head   bigint NOT NULL DEFAULT 0,
    stopped       text
);
COMMENT ON TABLE incoming_streams IS 'The receiver''s end: newest batch of an unbroken run that is stored, and applied';

CREATE TABLE received_batches (
    stream        text NOT NULL,
    epoch         integer NOT NULL,
    sequence      bigint NOT NULL,
    first_record  bigint NOT NULL,
    records       integer NOT NULL,
    hash          bytea NOT NULL,
    manifest      bytea NOT NULL,
    signature     bytea NOT NULL,
    payload       bytea,
    received_at   timestamptz NOT NULL DEFAULT now(),
    applied_at    timestamptz,
    superseded    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (stream, epoch, sequence)
);
ALTER TABLE received_batches ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX received_batches_unapplied ON received_batches (stream, epoch, sequence) WHERE applied_at IS NULL;

CREATE TABLE quarantined_records (
    stream          text NOT NULL,
    epoch           integer NOT NULL,
    record          bigint NOT NULL,
    sequence        bigint NOT NULL,
    reason          text NOT NULL,
    body            bytea NOT NULL,
    quarantined_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, epoch, record)
);
COMMENT ON TABLE quarantined_records IS 'Records that crossed but cannot be applied, with the reason';
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("the exchange's tables hold what others rely on: restore a backup instead")
