"""What became of a record that was set aside: tried again, applied after all, or dropped by an operator."""

from alembic import op

revision = "exchange_0004"
down_revision = "exchange_0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    ALTER TABLE quarantined_records
        ADD COLUMN retries     integer NOT NULL DEFAULT 0,
        ADD COLUMN retried_at  timestamptz,
        ADD COLUMN applied_at  timestamptz,
        ADD COLUMN dropped_at  timestamptz,
        ADD COLUMN dropped_by  text,
        ADD COLUMN drop_reason text,
        ADD CONSTRAINT quarantined_records_settled_once CHECK (applied_at IS NULL OR dropped_at IS NULL),
        ADD CONSTRAINT quarantined_records_dropped_by_someone_for_a_reason
            CHECK (num_nonnulls(dropped_at, dropped_by, drop_reason) IN (0, 3))
    """,
    """
    CREATE INDEX quarantined_records_open ON quarantined_records (stream, epoch, record)
    WHERE applied_at IS NULL AND dropped_at IS NULL
    """,
    """
    COMMENT ON COLUMN incoming_streams.quarantined IS 'Records that are set aside and wait for an operator: neither
    applied by a retry nor dropped. Goes into receipts'
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("an operator's decisions are not given up: restore a backup instead")
