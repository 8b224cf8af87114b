"""Rows that no batch explains are set aside by a repair, not deleted."""

from alembic import op

revision = "exchange_0005"
down_revision = "exchange_0004"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE set_aside (
        number        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        table_name    text NOT NULL,
        request_id    uuid NOT NULL,
        whole         jsonb NOT NULL,
        reason        text NOT NULL,
        set_aside_at  timestamptz NOT NULL DEFAULT now()
    )
    """,
    "COMMENT ON TABLE set_aside IS 'Rows that no batch explains, as they were, with the reason: evidence. Nothing"
    " deletes them by itself'",
    "COMMENT ON COLUMN set_aside.whole IS 'The row with all its columns; bytes as \\x and hexadecimal digits'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("what was set aside may be the only copy: restore a backup instead")
