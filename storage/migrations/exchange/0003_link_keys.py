"""The public keys of the link beyond those in files: introduced over the link, retiring, retired, revoked."""

from alembic import op

revision = "exchange_0003"
down_revision = "exchange_0002"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE link_keys (
    key_id         text PRIMARY KEY,
    owner          text NOT NULL CHECK (owner IN ('request', 'response')),
    public_key     bytea NOT NULL CHECK (octet_length(public_key) = 32),
    introduced_by  text,
    introduced_at  timestamptz NOT NULL DEFAULT now(),
    confirmed_at   timestamptz,
    retires_at     timestamptz,
    revoked_at     timestamptz
);
COMMENT ON TABLE link_keys IS 'Public keys of both networks as this one knows them; this outweighs the key files';
COMMENT ON COLUMN link_keys.introduced_by IS 'Id of the key that vouched for this one; NULL for an operator or a file';
COMMENT ON COLUMN link_keys.confirmed_at IS 'Of a key of our own: when the other network said that it trusts it';
COMMENT ON COLUMN link_keys.retires_at IS 'From then on it is believed only for batches, which may be older';
COMMENT ON COLUMN link_keys.revoked_at IS 'Since then nothing that it signed is believed'
"""


def upgrade() -> None:
    for statement in TABLE.split(";\n"):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("keys introduced over the link are known nowhere else: restore a backup instead")
