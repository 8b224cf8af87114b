"""Content codings of answers (RFC 9110, 8.4), decoded step by step so that a small answer cannot fill the memory."""

import gzip
import zlib
from io import BytesIO
from typing import Protocol

import zstandard

from execution.answer import ExecutionFailed

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Of an answer, as it is sent and as it is decoded."""
CODINGS = ("gzip", "zstd")
_STEP_BYTES = 1024 * 1024
_MAX_WINDOW_BYTES = 8 * 1024 * 1024


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def decoded(body: bytes, coding: str) -> bytes:
    """The body without its content coding. Raises `ExecutionFailed` if it is too large or cannot be decoded."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return body
    try:
        match coding:
            case "gzip" | "x-gzip":
                return _read(gzip.GzipFile(fileobj=BytesIO(body)))
            case "zstd":
                decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
                return _read(decompressor.stream_reader(BytesIO(body), read_across_frames=True))
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        raise ExecutionFailed("answer-unreadable", f"the called service sent damaged {coding} data") from None
    raise ExecutionFailed("answer-unreadable", f"the called service sent a coding other than {', '.join(CODINGS)}")


def too_large() -> ExecutionFailed:
    return ExecutionFailed("answer-too-large", f"the called service answered more than {MAX_ANSWER_BYTES} bytes")


def _read(reader: _Readable) -> bytes:
    whole = bytearray()
    while chunk := reader.read(_STEP_BYTES):
        whole += chunk
        if len(whole) > MAX_ANSWER_BYTES:
            raise too_large()
    return bytes(whole)
