"""Epochs: an operator's decision where a stream's history begins anew, and what of the old one is void."""

from alembic import op

revision = "exchange_0002"
down_revision = "exchange_0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE epochs (
        stream             text NOT NULL,
        epoch              integer NOT NULL,
        previous_epoch     integer NOT NULL,
        previous_sequence  bigint NOT NULL,
        reason             text NOT NULL,
        ordered_by         text NOT NULL,
        begun_at           timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (stream, epoch)
    )
    """,
    """
    COMMENT ON TABLE epochs IS 'Each epoch follows the last batch that both sides had. Batches of earlier epochs
    after that one are void: their records were sealed again in the new epoch'
    """,
    "ALTER TABLE sealed_batches ADD COLUMN voided_at timestamptz",
    "DROP INDEX sealed_batches_undelivered",
    """
    CREATE INDEX sealed_batches_undelivered ON sealed_batches (stream, epoch, sequence)
    WHERE delivered_at IS NULL AND voided_at IS NULL
    """,
    "ALTER TABLE outgoing_streams ADD COLUMN batch_bytes integer",
    """
    COMMENT ON COLUMN outgoing_streams.batch_bytes IS 'Most bytes of records to seal together, since something on the
    way refused a larger batch (413); NULL for the protocol''s own bound'
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("the record of an epoch's beginning is not given up: restore a backup instead")
