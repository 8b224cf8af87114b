"""How the last attempts to use the link ended, stream by stream: what an alarm needs to say why nothing comes."""

from alembic import op

revision = "response_0002"
down_revision = "response_0001"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE link_attempts (
        stream         text PRIMARY KEY,
        tried_at       timestamptz NOT NULL,
        ok_at          timestamptz,
        failing_since  timestamptz,
        failures       integer NOT NULL DEFAULT 0,
        kind           text,
        detail         text,
        wait_until     timestamptz,
        clock_ahead    double precision
    )
    """,
    """
    COMMENT ON COLUMN link_attempts.failures IS 'In a row. With failing_since, kind and detail of the last one it is
    cleared by the first attempt that succeeds'
    """,
    "COMMENT ON COLUMN link_attempts.clock_ahead IS 'Seconds by which the other side''s clock is ahead of ours'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE link_attempts")
