"""Which partition a batch is of that a row names: epoch and number alone name one in each partition."""

from alembic import op

revision = "request_0004"
down_revision = "request_0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    # A default that is a constant rewrites no row.
    "ALTER TABLE requests ADD COLUMN partition smallint NOT NULL DEFAULT 0",
    "ALTER TABLE request_groups ADD COLUMN partition smallint NOT NULL DEFAULT 0",
    "ALTER TABLE results ADD COLUMN partition smallint NOT NULL DEFAULT 0",
    "ALTER TABLE request_groups DROP CONSTRAINT request_groups_pkey",
    "ALTER TABLE request_groups ADD PRIMARY KEY (partition, epoch, sequence)",
    "DROP INDEX request_groups_led",
    "CREATE INDEX request_groups_led ON request_groups (partition, epoch, leader) WHERE leader IS NOT NULL",
    "DROP INDEX requests_by_group",
    "CREATE INDEX requests_by_group ON requests (partition, epoch, sequence)",
    "DROP INDEX results_by_batch",
    "CREATE INDEX results_by_batch ON results (partition, epoch, sequence)",
    "COMMENT ON COLUMN requests.partition IS 'Of the requests stream, in which it was sealed; 0 where there is one'",
    "COMMENT ON COLUMN results.partition IS 'Of the results stream, by which it came; 0 where there is one'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("batches of several partitions could not be told apart: restore a backup instead")
