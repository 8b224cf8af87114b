"""The tables of the exchange, the same in both networks."""

from alembic import op

revision = "exchange_1"
down_revision = None
branch_labels = ("exchange",)
depends_on = None

TABLES = """
CREATE TABLE outgoing_streams (
    stream             text PRIMARY KEY,
    epoch              integer NOT NULL DEFAULT 1,
    sequence           bigint NOT NULL DEFAULT 0,
    record             bigint NOT NULL DEFAULT 0,
    hash               bytea NOT NULL,
    content            bytea,
    delivered          bigint NOT NULL DEFAULT 0,
    applied            bigint NOT NULL DEFAULT 0,
    quarantined        bigint NOT NULL DEFAULT 0,
    receipt_at         timestamptz,
    receipt_issued_at  timestamptz,
    stopped            text,
    batch_bytes        integer
);
COMMENT ON TABLE outgoing_streams IS 'The sender''s end of each stream: newest sealed batch, newest receipt';
COMMENT ON COLUMN outgoing_streams.content IS 'SHA-256 of the records of the newest snapshot, to detect a change';
COMMENT ON COLUMN outgoing_streams.receipt_issued_at IS 'Time of the newest receipt, by the receiver''s clock';
COMMENT ON COLUMN outgoing_streams.batch_bytes IS 'Most bytes of records in a batch, after a proxy refused a larger one
(413); NULL for the protocol''s own bound';

CREATE TABLE outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream      text NOT NULL,
    body        bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_by_stream ON outbox (stream, id);
COMMENT ON TABLE outbox IS 'Records that are committed and not sealed yet; sealing deletes them';

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
    voided_at     timestamptz,
    PRIMARY KEY (stream, epoch, sequence)
);
ALTER TABLE sealed_batches ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX sealed_batches_undelivered ON sealed_batches (stream, epoch, sequence)
    WHERE delivered_at IS NULL AND voided_at IS NULL;
COMMENT ON COLUMN sealed_batches.payload IS 'NULL after retention; the manifest is kept';

CREATE TABLE incoming_streams (
    stream             text PRIMARY KEY,
    epoch              integer NOT NULL DEFAULT 1,
    sequence           bigint NOT NULL DEFAULT 0,
    record             bigint NOT NULL DEFAULT 0,
    hash               bytea NOT NULL,
    applied            bigint NOT NULL DEFAULT 0,
    quarantined        bigint NOT NULL DEFAULT 0,
    heard_at           timestamptz,
    heard_issued_at    timestamptz,
    stopped            text
);
COMMENT ON TABLE incoming_streams IS 'The receiver''s end: newest batch stored without a gap, newest batch applied';
COMMENT ON COLUMN incoming_streams.heard_issued_at IS 'Time of the newest heartbeat, by the sender''s clock';
COMMENT ON COLUMN incoming_streams.quarantined IS 'Open records: neither applied by a retry nor dropped. Receipts
carry this number';

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
    size            integer NOT NULL,
    body            bytea NOT NULL,
    quarantined_at  timestamptz NOT NULL DEFAULT now(),
    retries         integer NOT NULL DEFAULT 0,
    retried_at      timestamptz,
    applied_at      timestamptz,
    dropped_at      timestamptz,
    dropped_by      text,
    drop_reason     text,
    PRIMARY KEY (stream, epoch, record),
    CONSTRAINT quarantined_records_settled_once CHECK (applied_at IS NULL OR dropped_at IS NULL),
    CONSTRAINT quarantined_records_dropped_by_someone_for_a_reason
        CHECK (num_nonnulls(dropped_at, dropped_by, drop_reason) IN (0, 3))
);
CREATE INDEX quarantined_records_open ON quarantined_records (stream, epoch, record)
    WHERE applied_at IS NULL AND dropped_at IS NULL;
COMMENT ON TABLE quarantined_records IS 'Records that crossed and cannot be applied, with reason and outcome';
COMMENT ON COLUMN quarantined_records.size IS 'Bytes of the record as it came. The body is its beginning where it is
shorter: all of it is in the payload of its batch';

CREATE TABLE set_aside (
    number        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name    text NOT NULL,
    request_id    uuid NOT NULL,
    whole         jsonb NOT NULL,
    reason        text NOT NULL,
    set_aside_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE set_aside IS 'Rows that no batch explains, with the reason. Evidence: no program deletes them';
COMMENT ON COLUMN set_aside.whole IS 'All columns of the row; bytes as \\x and hexadecimal digits';

CREATE TABLE epochs (
    stream             text NOT NULL,
    epoch              integer NOT NULL,
    previous_epoch     integer NOT NULL,
    previous_sequence  bigint NOT NULL,
    reason             text NOT NULL,
    ordered_by         text NOT NULL,
    begun_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, epoch)
);
COMMENT ON TABLE epochs IS 'Each epoch follows the last batch that both sides had. Later batches of the epoch before are
void: their records were sealed again in the new epoch';

CREATE TABLE link_keys (
    key_id         text PRIMARY KEY,
    owner          text NOT NULL CHECK (owner IN ('request', 'response')),
    public_key     bytea NOT NULL CHECK (octet_length(public_key) = 32),
    introduced_by  text,
    introduced_at  timestamptz NOT NULL DEFAULT now(),
    confirmed_at   timestamptz,
    retires_at     timestamptz,
    revoked_at     timestamptz
);
COMMENT ON TABLE link_keys IS 'Public keys of both networks as this one knows them; precedes the key files';
COMMENT ON COLUMN link_keys.introduced_by IS 'Id of the key that vouched for this one; NULL for an operator or a file';
COMMENT ON COLUMN link_keys.confirmed_at IS 'When the other network confirmed that it trusts this key of ours';
COMMENT ON COLUMN link_keys.retires_at IS 'After this time only batches are accepted that it signed: they may be older';
COMMENT ON COLUMN link_keys.revoked_at IS 'After this time nothing that it signed is accepted';

CREATE TABLE alerts (
    alert_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    message     text NOT NULL,
    raised_at   timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    cleared_at  timestamptz
);
CREATE UNIQUE INDEX alerts_open ON alerts (name) WHERE cleared_at IS NULL;
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a downgrade would delete the exchange's tables: restore a backup instead")
