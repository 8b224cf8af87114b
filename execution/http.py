"""The http executor: one HTTP call with a templated JSON body. JSON Pointers select the rows of the answer."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import structlog

from execution.answer import MAX_TOTAL, Answer, ExecutionFailed, json_rows, rows_wanted
from execution.content_coding import CODINGS, MAX_ANSWER_BYTES, decoded, too_large
from models.executors import HttpExecutor
from models.requests import Limits

log = structlog.get_logger(__name__)

SMALL_BYTES = 256 * 1024
"""Larger or compressed answers are read in a thread, one at a time: their values take several times their bytes."""
MAX_VALUES = 5_000_000
"""Each takes up to 100 bytes of memory, however short its JSON is."""
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")


class HttpCalls:
    """Calls only the hosts that the configuration allows."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = frozenset(hosts)
        self._client = httpx.AsyncClient(
            follow_redirects=False, trust_env=False, headers={"Accept-Encoding": ", ".join(CODINGS)}
        )
        self._large = asyncio.Semaphore(1)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def execute(
        self, spec: HttpExecutor, params: dict[str, Any], limits: Limits, secrets: Mapping[str, str]
    ) -> Answer:
        """Make the call. Raises `ExecutionFailed` with the reason, or httpx's error if the host does not answer."""
        host = urlsplit(spec.url)
        if not {host.netloc, host.hostname} & self._hosts:
            raise ExecutionFailed(
                "host-not-allowed", "the host of this request type is not allowed by the configuration"
            )
        missing = sorted(set(spec.secret_headers.values()) - secrets.keys())
        if missing:
            log.error("execution.secret_missing", settings=missing)
            raise ExecutionFailed("secret-missing", "a secret setting that this request type needs is missing")
        headers = {name: secrets[setting] for name, setting in spec.secret_headers.items()}
        content = orjson.dumps(fill(spec.body, params)) if spec.body is not None else None
        if content is not None:
            headers["Content-Type"] = "application/json"
        request = self._client.build_request(
            spec.method, spec.url, content=content, headers=headers, timeout=limits.timeout
        )
        response = await self._client.send(request, stream=True)
        try:
            raw = await _bounded(response)
        finally:
            await response.aclose()
        if response.status_code >= 500 or response.status_code == 429:
            raise httpx.HTTPStatusError(f"status {response.status_code}", request=request, response=response)
        if not response.is_success:
            raise ExecutionFailed("call-refused", f"the called service answered with status {response.status_code}")
        coding, wanted = response.headers.get("content-encoding", ""), rows_wanted(limits, params)
        if len(raw) <= SMALL_BYTES and not coding:
            return _answer(spec, raw, coding, wanted, limits.bytes)
        async with self._large:
            return await asyncio.to_thread(_answer, spec, raw, coding, wanted, limits.bytes)


async def _bounded(response: httpx.Response) -> bytes:
    """The body as it was sent: httpx would inflate a whole chunk before anybody can count."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise too_large()
    return bytes(body)


def _answer(spec: HttpExecutor, raw: bytes, coding: str, wanted: int, most_bytes: int) -> Answer:
    body = decoded(raw, coding)
    if body.count(b",") > MAX_VALUES:
        raise ExecutionFailed("answer-too-large", f"the called service answered more than {MAX_VALUES} values")
    try:
        loaded = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ExecutionFailed("answer-not-json", "the called service did not answer with JSON") from None
    rows = resolve(loaded, spec.rows)
    if not isinstance(rows, list):
        rows = [rows]
    total = resolve(loaded, spec.total) if spec.total is not None else len(rows)
    if not isinstance(total, int) or isinstance(total, bool):
        raise ExecutionFailed("answer-without-total", "the answer has no whole number where its total is expected")
    return Answer(json_rows(rows, wanted, most_bytes), min(max(total, 0), MAX_TOTAL))


def fill(template: Any, params: Mapping[str, Any]) -> Any:
    """Replace the placeholders of a template.

    A placeholder that is the whole string keeps the type of its parameter; one inside a longer string becomes text. A
    missing parameter is null. Placeholders inside a parameter's value are not replaced.
    """
    if isinstance(template, dict):
        return {key: fill(item, params) for key, item in template.items()}
    if isinstance(template, list):
        return [fill(item, params) for item in template]
    if not isinstance(template, str):
        return template
    whole = _PLACEHOLDER.fullmatch(template)
    if whole:
        return params.get(whole[1])
    return _PLACEHOLDER.sub(lambda found: _as_text(params.get(found[1])), template)


def _as_text(item: Any) -> str:
    return item if isinstance(item, str) else orjson.dumps(item).decode()


def resolve(document: Any, pointer: str) -> Any:
    """The value at a JSON Pointer (RFC 6901). Raises `ExecutionFailed` if there is none."""
    found = document
    for token in pointer.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        try:
            found = found[_index(token)] if isinstance(found, list) else found[token]
        except (KeyError, IndexError, TypeError):
            raise ExecutionFailed(
                "answer-without-rows", "the answer has nothing where this request type expects its rows or total"
            ) from None
    return found


def _index(token: str) -> int:
    """An array index as RFC 6901 writes it, without sign and leading zeros. Raises ``IndexError`` otherwise."""
    if not _INDEX.fullmatch(token):
        raise IndexError(token)
    return int(token)
