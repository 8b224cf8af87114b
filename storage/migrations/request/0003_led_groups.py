"""Groups that come close together are seen to by one workflow: that of the first of them."""

from alembic import op

revision = "request_0003"
down_revision = "request_0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE request_groups ADD COLUMN leader bigint",
    "CREATE INDEX request_groups_led ON request_groups (epoch, leader) WHERE leader IS NOT NULL",
    "COMMENT ON COLUMN request_groups.leader IS 'The group whose workflow sees to this one as well; NULL: its own'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE request_groups DROP COLUMN leader")
