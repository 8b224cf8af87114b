"""When a result was first read by its owner."""

from alembic import op

revision = "request_0002"
down_revision = "request_0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE results ADD COLUMN first_read_at timestamptz",
    "COMMENT ON COLUMN results.first_read_at IS 'Noted beside the reading, within a second or so; NULL where it was"
    " never read, or the note was lost with its process'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE results DROP COLUMN first_read_at")
