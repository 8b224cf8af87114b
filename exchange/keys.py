"""The link's keys: one Ed25519 key pair per network, named by a hash, so that several are trusted while they rotate.

A network's key directory holds ``signing.pem`` (its own private key, PKCS8) and ``trusted/<key id>.pem`` (public keys
of the other network). Ed25519: RFC 8032.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from exchange.errors import BadSignature, UnknownKey
from models.errors import ConfigurationError
from models.streams import Network

DOMAIN = b"airlock/1 "
"""Every signed message starts with this and its own purpose, so that a signature serves for nothing else."""


def key_id_of(public: Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


@dataclass(frozen=True)
class LinkKeys:
    """A network's own signing key and the keys that it trusts of the other side."""

    signing: Ed25519PrivateKey
    key_id: str
    trusted: dict[str, Ed25519PublicKey]

    def sign(self, purpose: str, message: bytes) -> bytes:
        """64 bytes of signature over the purpose and the message."""
        return self.signing.sign(DOMAIN + purpose.encode() + b"\n" + message)

    def verify(self, purpose: str, message: bytes, key_id: str, signature: bytes) -> None:
        """Raises `UnknownKey` or `BadSignature` unless a trusted key signed exactly this for this purpose."""
        public = self.trusted.get(key_id)
        if public is None:
            raise UnknownKey(
                f"key {key_id[:32]!r} is not trusted here; trusted: {', '.join(sorted(self.trusted)) or 'none'}"
            )
        try:
            public.verify(signature, DOMAIN + purpose.encode() + b"\n" + message)
        except InvalidSignature:
            raise BadSignature(f"the signature of this {purpose} by key {key_id} does not fit its bytes") from None


def load_link_keys(directory: Path) -> LinkKeys:
    """Read a network's key directory; raises `ConfigurationError` naming the file that is missing or no key."""
    private = _read_private(directory / "signing.pem")
    trusted: dict[str, Ed25519PublicKey] = {}
    for file in sorted((directory / "trusted").glob("*.pem")):
        try:
            public = serialization.load_pem_public_key(file.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(f"{file} is no public key: {error}") from None
        if not isinstance(public, Ed25519PublicKey):
            raise ConfigurationError(f"{file} holds no Ed25519 public key")
        trusted[key_id_of(public)] = public
    if not trusted:
        raise ConfigurationError(f"no public key of the other network in {directory / 'trusted'}")
    return LinkKeys(private, key_id_of(private.public_key()), trusted)


def ensure_link_keys(root: Path) -> dict[Network, str]:
    """Make what is missing of both networks' key directories below ``root`` and introduce each to the other.

    Existing keys are kept. Returns each network's key id. Raises `ConfigurationError` for a file that holds no key.
    """
    ids: dict[Network, str] = {}
    for network in Network:
        path = root / network / "signing.pem"
        if path.exists():
            private = _read_private(path)
        else:
            private = Ed25519PrivateKey.generate()
            _write_private(
                path,
                private.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                ),
            )
        public = private.public_key()
        ids[network] = key_id_of(public)
        other = Network.RESPONSE if network is Network.REQUEST else Network.REQUEST
        trusted = root / other / "trusted"
        trusted.mkdir(parents=True, exist_ok=True)
        (trusted / f"{ids[network]}.pem").write_bytes(
            public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return ids


def _read_private(path: Path) -> Ed25519PrivateKey:
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"no link key at {path} ({error}); make the keys with: airlock keys create DIRECTORY"
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} holds no Ed25519 key")
    return private


def _write_private(path: Path, content: bytes) -> None:
    """Write whole or not at all, readable by the owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
