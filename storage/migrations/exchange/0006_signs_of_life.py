"""When the other side said what it was last heard of by: the same words a second time are no sign of life."""

from alembic import op

revision = "exchange_0006"
down_revision = "exchange_0005"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE incoming_streams ADD COLUMN heard_issued_at timestamptz",
    "ALTER TABLE outgoing_streams ADD COLUMN receipt_issued_at timestamptz",
    "COMMENT ON COLUMN incoming_streams.heard_issued_at IS 'By the sender''s clock: of its newest heartbeat'",
    "COMMENT ON COLUMN outgoing_streams.receipt_issued_at IS 'By the receiver''s clock: of its newest receipt'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("without it a replay would pass for a sign of life: restore a backup instead")
