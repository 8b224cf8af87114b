"""Bodies for the batch endpoint that are no batch, or none that may be accepted. Seeded: a run can be replayed.

Half of them are junk. The other half are made from good batches, and everything about them that a stranger could not
know, the HTTP signature and often the manifest's signature too, is right: they reach the innermost parser.
"""

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import zstandard

from exchange.wire.batch import to_wire
from exchange.wire.keys import LinkKeys
from exchange.wire.manifest import MAX_RAW_BYTES

MUTATIONS = 12
LARGEST = 64 * 1024
EARLY = 1000
"""Number of a batch that is right in itself: nothing before it has come, so it may not be accepted."""
FIELDS = (
    *("spec", "link", "stream", "epoch", "sequence", "first_record", "last_record", "count", "part", "parts"),
    *("raw_bytes", "payload_bytes", "payload_sha256", "previous", "key_id", "sealed_at", "more"),
)
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 2**63, 2**64, 10**40, float("inf"), "", "x" * 300, "\x00", "1", [], {}, [1], {"a": 1}),
    *("results\x00", "../results", "9999-12-31T23:59:59Z", "0000-00-00", "-1", "\u0663", "\ud800"),
)


@dataclass(frozen=True)
class Body:
    """What to send; ``kind`` names how it was made, ``signed`` whether the call carries a valid HTTP signature."""

    kind: str
    content: bytes
    signed: bool


class Fuzzer:
    """Makes bodies. The n-th of a seed is always the same, but for the time in a signature."""

    def __init__(self, seed: int, keys: LinkKeys, link: str) -> None:
        self._random = random.Random(seed)
        self._keys = keys
        self._link = link
        self._kinds: dict[str, Callable[[], bytes]] = {
            "random bytes": self._junk,
            "random text": self._text,
            "a good batch, mutated": self._mutated,
            "a good batch, cut off or extended": self._resized,
            "lines of a batch, mixed": self._mixed,
            "a signed manifest that is no manifest": self._odd_manifest,
            "a signed manifest with odd fields": self._odd_fields,
            "a signed manifest over a mutated payload": self._odd_payload,
            "a signed manifest over a bomb": self._bomb,
            "a signed manifest over deep JSON": self._deep,
            "another link's batch": lambda: self._batch(link="other"),
            "a batch of a later number": lambda: self._batch(sequence=self._random.choice((4, 2**31, 2**63 - 1))),
        }

    def next(self) -> Body:
        """The next body."""
        kind = self._random.choice(list(self._kinds))
        return Body(kind, self._kinds[kind](), self._random.random() < 0.8)

    def _junk(self) -> bytes:
        return self._random.randbytes(self._size())

    def _text(self) -> bytes:
        alphabet = '{}[]",:0123456789eE+-. \n\\utrfalsn\x00é\ud7ff'
        return "".join(self._random.choices(alphabet, k=self._size() // 4)).encode()

    def _size(self) -> int:
        """Small ones mostly."""
        return int(2 ** self._random.uniform(0, 16)) % LARGEST

    def _mutated(self) -> bytes:
        return self._mutate(self._batch())

    def _mutate(self, content: bytes) -> bytes:
        """At least one byte is another afterwards."""
        changed = bytearray(content)
        for _ in range(self._random.randint(1, MUTATIONS)):
            place = self._random.randrange(len(changed)) if changed else 0
            match self._random.randrange(4):
                case 0 if changed:
                    changed[place] ^= 1 << self._random.randrange(8)
                case 1 if changed:
                    changed[place] = self._random.randrange(256)
                case 2:
                    changed[place:place] = self._random.randbytes(self._random.randint(1, 8))
                case _:
                    del changed[place : place + self._random.randint(1, 8)]
        return bytes(changed) if changed != content else content + b"\0"

    def _resized(self) -> bytes:
        batch = self._batch()
        if self._random.random() < 0.5:
            return batch[: self._random.randrange(len(batch))]
        return batch + self._random.randbytes(self._random.randint(1, 500))

    def _mixed(self) -> bytes:
        parts = [*self._batch().split(b"\n", 2), *self._batch(sequence=7).split(b"\n", 2), b"", self._junk()]
        taken = self._random.choices(parts, k=self._random.randint(1, 5))
        return b"\n".join(taken) + b"."

    def _odd_manifest(self) -> bytes:
        content = self._random.choice(
            [
                self._text().replace(b"\n", b" ")[:4000],
                self._mutate(self._manifest(b"{}", 1)).replace(b"\n", b" "),
                b"[" * self._random.randint(1, 4000),
                b'{"key_id":"%s","spec":%d}' % (self._keys.key_id.encode(), self._random.choice((0, 1, 2, 10**30))),
                b'{"key_id":"%s","spec":1,"a":%s' % (self._keys.key_id.encode(), b'{"a":' * 600),
                b"null",
                b'"' + b"x" * 3900 + b'"',
            ]
        )
        return to_wire(content, self._keys.sign("manifest", content), zstandard.compress(b"{}\n"))

    def _odd_fields(self) -> bytes:
        chosen = self._random.sample(FIELDS, self._random.randint(1, 4))
        return self._batch(**{name: self._random.choice(ODD) for name in chosen})

    def _odd_payload(self) -> bytes:
        payload = self._mutate(zstandard.compress(self._random.randbytes(200) + b"\n"))
        return self._signed(payload, 1, raw_bytes=201)

    def _bomb(self) -> bytes:
        """Inflates to twice of what a batch may hold, where 1000 bytes or all that it may hold are said."""
        return self._signed(_bomb(), 1, raw_bytes=self._random.choice((1000, MAX_RAW_BYTES)))

    def _deep(self) -> bytes:
        return self._batch(b"[" * self._random.randint(1000, 50_000) + b"\n")

    def _batch(self, raw: bytes = b"{}\n", /, **lies: Any) -> bytes:
        """A batch that is right but for its lies, and for its place: it comes too early."""
        return self._signed(zstandard.compress(raw), raw.count(b"\n"), **({"raw_bytes": len(raw)} | lies))

    def _signed(self, payload: bytes, count: int, /, **lies: Any) -> bytes:
        content = self._manifest(payload, count, **lies)
        return to_wire(content, self._keys.sign("manifest", content), payload)

    def _manifest(self, payload: bytes, count: int, /, **lies: Any) -> bytes:
        truth = {
            "spec": 1, "link": self._link, "stream": "results", "epoch": 1, "sequence": EARLY, "first_record": EARLY,
            "last_record": EARLY + count - 1, "count": count, "part": 1, "parts": 1, "raw_bytes": len(payload),
            "payload_bytes": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest(), "previous": "1" * 64,
            "key_id": self._keys.key_id, "sealed_at": "2026-01-02T03:04:05Z",
        }  # fmt: skip
        return json.dumps(truth | lies).encode()


@cache
def _bomb() -> bytes:
    return zstandard.compress(b'"' + b"0" * 2 * MAX_RAW_BYTES + b'"\n')
