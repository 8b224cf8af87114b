"""Every byte that crosses the link in this process, both ways, looked through for what must not cross.

What is looked for is looked for in every spelling in which it could hide: plain, JSON-escaped, percent-encoded, as hex,
in base64 at any alignment, and all of these within zstd as well.
"""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
import zstandard

from exchange.carriers.http import LinkClient

ZSTD = b"\x28\xb5\x2f\xfd"
MOST_INFLATED = 64 * 1024 * 1024


@dataclass(frozen=True)
class Found:
    """Something that crossed and must not have."""

    what: str
    where: str
    """Direction, method and target."""


@dataclass
class Crossing:
    """What was looked through, and what was found. ``forbidden``: name → bytes."""

    forbidden: dict[str, bytes] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    calls: int = 0
    seen: int = 0
    """Bytes, both ways."""
    places: set[str] = field(default_factory=set)
    _patterns: tuple[int, list[tuple[str, "re.Pattern[bytes]"]]] = (0, [])

    def look(self, where: str, content: bytes) -> None:
        """Look these bytes through."""
        self.calls += 1
        self.seen += len(content)
        self.places.add(where)
        for text in readings(content):
            self.found += [Found(what, where) for what, pattern in self._wanted() if pattern.search(text)]

    @contextmanager
    def forbidding(self, **canaries: str | bytes) -> Iterator["Crossing"]:
        """While the block runs, these may not cross. What is found is told to this block alone."""
        inner = Crossing({name: text.encode() if isinstance(text, str) else text for name, text in canaries.items()})
        WATCHING.append(inner)
        try:
            yield inner
        finally:
            WATCHING.remove(inner)

    def _wanted(self) -> list[tuple[str, "re.Pattern[bytes]"]]:
        if self._patterns[0] != len(self.forbidden):
            made = [
                (what, re.compile(b"|".join(re.escape(text) for text in spellings(secret)), re.IGNORECASE))
                for what, secret in self.forbidden.items()
            ]
            self._patterns = len(self.forbidden), made
        return self._patterns[1]


WATCHING: list[Crossing] = []


def readings(content: bytes) -> Iterator[bytes]:
    """The bytes as they are and, from every place at which a zstd frame begins, what it inflates to."""
    yield content
    place = content.find(ZSTD)
    while place >= 0:
        try:
            with zstandard.ZstdDecompressor().stream_reader(content[place:], read_across_frames=True) as reader:
                yield reader.read(MOST_INFLATED)
        except zstandard.ZstdError:
            pass  # only looked like one
        place = content.find(ZSTD, place + 1)


def as_text(secret: bytes) -> str:
    """A secret as the text that it is; one that is no text with a character for each byte."""
    try:
        return secret.decode()
    except UnicodeDecodeError:
        return secret.decode("latin-1")


def spellings(secret: bytes) -> set[bytes]:
    """Every form of a secret that is looked for."""
    text = as_text(secret)
    found = {secret, secret.hex().encode(), quote(secret, safe="").encode()}
    found |= {json.dumps(text, ensure_ascii=ascii_only)[1:-1].encode() for ascii_only in (True, False)}
    found.add("".join(f"\\u{ord(character):04x}" for character in text).encode())
    found.add("".join(f"%{byte:02x}" for byte in secret).encode())
    for offset in range(3):
        padded = b"\0" * offset + secret
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(padded[: len(padded) // 3 * 3])
            inner = whole[4:] if offset else whole  # what stands before shares the first group
            found |= {inner} if len(inner) >= 8 else set()
    return found


@contextmanager
def watching_the_link() -> Iterator[Crossing]:
    """Have every `LinkClient` of this process looked through for as long as the block runs."""
    crossing, original = Crossing(), LinkClient._connections
    WATCHING.append(crossing)

    def watched(client: LinkClient) -> httpx.AsyncClient:
        connections = original(client)
        connections._transport = _Watched(connections._transport)
        return connections

    LinkClient._connections = watched  # type: ignore[method-assign, assignment]
    try:
        yield crossing
    finally:
        LinkClient._connections = original  # type: ignore[method-assign]
        WATCHING.remove(crossing)


class _Watched(httpx.AsyncBaseTransport):
    """Passes everything on, and shows it to whoever watches."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode("ascii")
        where = f"{request.method} {target.partition('?')[0]}"
        _show(f"sent: {where}", b"\n".join([target.encode(), _lines(request.headers), await request.aread()]))
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Shown(response.stream, f"came: {where}", _lines(response.headers))
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Shown(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, where: str, head: bytes) -> None:
        self._inner, self._where, self._came = inner, where, bytearray(head)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._came += chunk
            yield chunk

    async def aclose(self) -> None:
        _show(self._where, bytes(self._came))
        await self._inner.aclose()


def _lines(headers: httpx.Headers) -> bytes:
    return b"\n".join(name + b": " + content for name, content in headers.raw) + b"\n\n"


def _show(where: str, content: bytes) -> None:
    for crossing in WATCHING:
        crossing.look(where, content)
