"""The link's keys: one Ed25519 key pair (RFC 8032) per network, named by a hash. Several are trusted during a rotation.

A network's key directory holds ``signing.pem`` (its private key, PKCS8), ``next.pem`` during a rotation (the next
private key), and ``trusted/<key id>.pem`` (public keys of the other network).
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from exchange.errors import BadSignature, UnknownKey
from models.errors import ConfigurationError
from models.streams import Network, StreamName

DOMAIN = b"airlock/1 "
"""Prefix of every signed message. The purpose follows, so a signature is valid for one purpose only."""

MANIFEST = "manifest"
"""Purpose of a batch's signature. Only for this purpose is a retired key still accepted."""

SIGNING, SUCCESSOR = "signing.pem", "next.pem"


def key_id_of(public: Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


@dataclass(frozen=True)
class LinkKeys:
    """A network's signing key and the keys of the other network that it trusts, at one moment."""

    signing: Ed25519PrivateKey
    key_id: str
    trusted: Mapping[str, Ed25519PublicKey]
    retired: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)
    """Accepted for sealed batches only. This is safe: a trusted key signs the request that brings them."""
    ended: Mapping[str, datetime] = field(default_factory=dict)
    """When each key of the other network was retired or revoked. Revoked keys are not in ``retired``."""
    own: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)
    """This network's public keys, earlier ones too. They verify the batches that it sealed."""
    earlier: Mapping[str, Ed25519PrivateKey] = field(default_factory=dict)
    """Private keys that were replaced a moment ago. A message that already names one is still signed with it."""

    def sign(self, purpose: str, message: bytes, key_id: str = "") -> bytes:
        """Sign the purpose and the message; returns 64 bytes. ``key_id``: the key that the message names."""
        return self.earlier.get(key_id, self.signing).sign(DOMAIN + purpose.encode() + b"\n" + message)

    def verify(self, purpose: str, message: bytes, key_id: str, signature: bytes) -> None:
        """Raises `UnknownKey` or `BadSignature` unless a trusted key signed exactly this for this purpose."""
        public = self.trusted.get(key_id)
        if public is None and purpose == MANIFEST:
            public = self.retired.get(key_id)
        if public is None:
            raise UnknownKey(self._reason_untrusted(key_id[:32]))
        try:
            public.verify(signature, DOMAIN + purpose.encode() + b"\n" + message)
        except InvalidSignature:
            raise BadSignature(f"the signature of this {purpose} by key {key_id} does not fit its bytes") from None

    async def know(self, key_id: str) -> None:
        """Load this key if it is new. Called before a signature is verified; `LiveKeys` overrides it."""

    def _reason_untrusted(self, key_id: str) -> str:
        """Why a key is not trusted, without the keys that are: a stranger may have asked."""
        if key_id not in self.ended:
            return f"key {key_id!r} is not trusted here, it was never introduced; see: airlock keys list"
        moment = f"{self.ended[key_id].astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
        if key_id in self.retired:
            return f"key {key_id} is no longer trusted, it retired at {moment}: sign with a newer one"
        return f"key {key_id} is no longer trusted, it was revoked at {moment}"


def keys_of_sender(keys: LinkKeys, stream: StreamName, network: Network) -> LinkKeys:
    """The keys that may sign batches of this stream: only our own, or only those of the other network."""
    if stream.sender is not network:
        return keys
    own = {**keys.own, keys.key_id: keys.signing.public_key()}
    return LinkKeys(keys.signing, keys.key_id, own)


def load_link_keys(directory: Path) -> LinkKeys:
    """Read a network's key directory. Raises `ConfigurationError` that names the missing or invalid file."""
    private = _read_private(directory / SIGNING)
    trusted: dict[str, Ed25519PublicKey] = {}
    for file in sorted((directory / "trusted").glob("*.pem")):
        public = read_public(file)
        trusted[key_id_of(public)] = public
    if not trusted:
        raise ConfigurationError(f"no public key of the other network in {directory / 'trusted'}")
    return LinkKeys(private, key_id_of(private.public_key()), trusted)


def read_public(file: Path) -> Ed25519PublicKey:
    """Read a public key from a PEM file. Raises `ConfigurationError` that names the file."""
    try:
        public = serialization.load_pem_public_key(file.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{file} is not a public key: {error}") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigurationError(f"{file} holds no Ed25519 public key")
    return public


def successor(directory: Path) -> Ed25519PublicKey | None:
    """The next signing key; None if there is none."""
    path = directory / SUCCESSOR
    return _read_private(path).public_key() if path.exists() else None


def make_successor(directory: Path) -> Ed25519PublicKey:
    """Make the next signing key, with the file mode of the present one. Raises `ConfigurationError`."""
    private = Ed25519PrivateKey.generate()
    try:
        mode = stat.S_IMODE((directory / SIGNING).stat().st_mode)
        _write_private(directory / SUCCESSOR, _pem(private), mode)
    except OSError as error:
        raise ConfigurationError(
            f"no key can be written to {directory} ({error.strerror}); rotate where the directory is writable"
        ) from None
    return private.public_key()


def promote_successor(directory: Path) -> None:
    """Replace the signing key by the successor. The previous private key is deleted."""
    (directory / SUCCESSOR).rename(directory / SIGNING)
    _sync_directory(directory)


def drop_successor(directory: Path) -> None:
    """Delete the successor."""
    (directory / SUCCESSOR).unlink(missing_ok=True)
    _sync_directory(directory)


def ensure_link_keys(root: Path) -> dict[Network, str]:
    """Make both networks' key directories below ``root``, so that each trusts the other. Existing keys are kept.

    Returns each network's key id. Raises `ConfigurationError` for a file that holds no key.
    """
    ids: dict[Network, str] = {}
    for network in Network:
        path = root / network / SIGNING
        if path.exists():
            private = _read_private(path)
        else:
            private = Ed25519PrivateKey.generate()
            _write_private(path, _pem(private))
        public = private.public_key()
        ids[network] = key_id_of(public)
        trusted = root / network.other / "trusted"
        trusted.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # not by the umask: who may write it is trusted
        _write_private(
            trusted / f"{ids[network]}.pem",
            public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            0o644,
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


def _pem(private: Ed25519PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file atomically, by default readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    draft.rename(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power failure."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
