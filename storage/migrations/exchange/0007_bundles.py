"""Which received batches came together: they are executed together, by one workflow, whoever starts it again."""

from alembic import op

revision = "exchange_0007"
down_revision = "exchange_0006"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE received_batches ADD COLUMN bundle_end bigint",
    "COMMENT ON COLUMN received_batches.bundle_end IS 'The last batch that came in the same answer; NULL: itself'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE received_batches DROP COLUMN bundle_end")
