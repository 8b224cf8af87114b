"""Which partition a batch is of that a request names: epoch and number alone name one in each partition."""

from alembic import op

revision = "response_0003"
down_revision = "response_0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    # A default that is a constant rewrites no row.
    "ALTER TABLE requests ADD COLUMN partition smallint NOT NULL DEFAULT 0",
    "DROP INDEX requests_by_batch",
    "CREATE INDEX requests_by_batch ON requests (partition, epoch, sequence)",
    "COMMENT ON COLUMN requests.partition IS 'Of the requests stream, by which it came; 0 where there is one'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("batches of several partitions could not be told apart: restore a backup instead")
