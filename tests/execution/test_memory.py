"""Limits bound memory. Each executor is asked for far more than its limits allow, in a process of its own, whose peak
is compared with what it had before.
"""

import json
import subprocess
import sys

import pytest

from tests.execution.conftest import Source

MIB = 1024 * 1024
MOST = 250 * MIB
"""Generous: the bound of an answer is 64 MiB, and it exists more than once while it is decoded."""

_CHILD = """
import asyncio, gzip, json, resource, sys
import zstandard
from pydantic import SecretStr
from execution.answer import ExecutionFailed
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.sql import SqlSources
from models.executors import HttpExecutor, PythonExecutor, SqlExecutor
from models.requests import Limits
from tests.execution.service import serving

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

async def outcome(asked):
    try:
        answer = await asked
    except ExecutionFailed as failed:
        return failed.reason
    return sum(map(len, answer.rows)) <= 2 * Limits().bytes

async def sql(argument):
    sources = SqlSources({"data": SecretStr(argument)}, 4)
    wide = SqlExecutor(source="data", query="SELECT repeat('x', 1000000) AS a FROM generate_series(1, 400)")
    widest = SqlExecutor(source="data", query="SELECT repeat('x', 200000000) AS a FROM generate_series(1, 2)")
    found = [await outcome(sources.execute(spec, {}, Limits(timeout=60))) for spec in (wide, widest)]
    await sources.aclose()
    return found

async def http(argument):
    zeros = b"0" * 2**20
    if argument == "zstd":
        compressor = zstandard.ZstdCompressor(level=3).compressobj()
        body = b"".join(compressor.compress(zeros) for _ in range(1600)) + compressor.flush()
    elif argument == "gzip":
        body = gzip.compress(zeros * 100) * 16
    elif argument == "values":
        body = b"[" + b"[]," * 20_000_000 + b"[]]"
    else:
        body = b"24 KB"
    async with serving() as service:
        service.answer(body, **({} if argument == "values" else {"Content_Encoding": argument}))
        calls = HttpCalls(["127.0.0.1"])
        found = [await outcome(calls.execute(HttpExecutor(url=service.url), {}, Limits(timeout=60), {}))]
        await calls.aclose()
    return found

async def python(argument):
    functions = PythonFunctions(["tests.execution.functions"])
    spec = PythonExecutor(function="tests.execution.functions:wide_rows")
    found = [await outcome(functions.execute(spec, {}, Limits(rows=100_000, timeout=60)))]
    functions.close()
    return found

before = peak()
found = asyncio.run(globals()[sys.argv[1]](sys.argv[2]))
print(json.dumps({"outcomes": found, "bytes": peak() - before}))
"""


def run(executor: str, argument: str) -> tuple[list[object], int]:
    """The outcomes, and the bytes that the peak of memory rose by."""
    ran = subprocess.run(
        [sys.executable, "-c", _CHILD, executor, argument], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    return told["outcomes"], told["bytes"]


def test_rows_beyond_the_limit_of_bytes_do_not_leave_the_source(source: Source) -> None:
    outcomes, grown = run("sql", source.owner_url)
    assert outcomes == [True, True]
    assert grown < MOST / 2


@pytest.mark.parametrize(
    ("coding", "reason"),
    [
        ("zstd", "answer-too-large"),
        ("gzip", "answer-too-large"),
        ("br", "answer-unreadable"),
        ("gzip, gzip", "answer-unreadable"),
    ],
)
def test_an_answer_does_not_inflate_beyond_its_bound(coding: str, reason: str) -> None:
    outcomes, grown = run("http", coding)
    assert outcomes == [reason]
    assert grown < MOST


def test_an_answer_of_many_empty_values_is_not_parsed() -> None:
    outcomes, grown = run("http", "values")
    assert outcomes == ["answer-too-large"]
    assert grown < 2 * MOST, "the service is in the same process"


def test_the_rows_of_a_function_are_taken_until_the_limit_of_bytes() -> None:
    outcomes, grown = run("python", "")
    assert outcomes == [True]
    assert grown < MOST / 2
