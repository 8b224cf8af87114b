"""Keys of somebody whom nobody trusts."""

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.wire.keys import LinkKeys, key_id_of


def other_keys(keys: LinkKeys, key_id: str | None = None) -> LinkKeys:
    """A stranger's key, that says it is the one of ``key_id``."""
    private = Ed25519PrivateKey.generate()
    return replace(keys, signing=private, key_id=key_id or key_id_of(private.public_key()))
