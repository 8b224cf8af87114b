"""Two networks' keys that trust each other, without files."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.wire.keys import LinkKeys, key_id_of


def key_pair(seed: int) -> tuple[LinkKeys, LinkKeys]:
    """The same two key pairs for the same seed: what a failing example needs to fail again."""
    one, other = (Ed25519PrivateKey.from_private_bytes(bytes([seed, side]) * 16) for side in (1, 2))
    ids = [key_id_of(private.public_key()) for private in (one, other)]
    return (
        LinkKeys(one, ids[0], {ids[1]: other.public_key()}),
        LinkKeys(other, ids[1], {ids[0]: one.public_key()}),
    )
