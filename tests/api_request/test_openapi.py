"""The OpenAPI document: complete, and good enough that a generated client works against the running app."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api_request.conftest import Api
from tests.api_request.serving import answer

CALLS = """
import json, sys
from made.client import AuthenticatedClient
from made.api.requests import cancel, get_request, get_result, list_my_requests, submit_requests
from made.api.catalogue import list_request_types, list_settings
from made.api.health import get_health
from made.models import Problem, RequestSubmission, ResultView

client = AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2], httpx_args={"trust_env": False})
accepted = submit_requests.sync(
    client=client, body=RequestSubmission.from_dict({"type": "airport", "params": {"iata": "IST"}})
)
refused = submit_requests.sync(client=client, body=RequestSubmission.from_dict({"type": "nothing"}))
assert isinstance(refused, Problem), refused
assert refused.errors[0].field == "type"
many = submit_requests.sync(client=client, body=[RequestSubmission.from_dict({"type": "anything"})] * 2)
assert len(many.ids) == 2 and many.id is None
pending = get_result.sync_detailed(accepted.id, client=client)
assert pending.status_code == 202 and isinstance(pending.parsed, ResultView)
page = list_my_requests.sync(client=client, limit=2)
assert [item.request_id for item in page.items] == many.ids[::-1], page
assert page.next_cursor
assert get_request.sync(accepted.id, client=client).params.to_dict() == {"iata": "IST"}
assert cancel.sync(many.ids[0], client=client).status == "cancelled"
assert {item.name for item in list_request_types.sync(client=client).request_types} == {"airport", "anything"}
assert list_settings.sync(client=client).settings[0].value == "blue"
assert get_health.sync(client=client).settings
print(json.dumps(str(accepted.id)))
"""


async def run(*command: str, cwd: Path | None = None) -> str:
    """Run a program beside the app, which is served by this process; gives what it wrote."""
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=PIPE, stderr=STDOUT)
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture
async def document(api: Api) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as http:
        found: dict[str, Any] = (await http.get("/openapi.json")).json()
    return found


async def test_every_operation_has_an_id_a_summary_and_its_problems(document: dict[str, Any]) -> None:
    ids = []
    for path, methods in document["paths"].items():
        for operation in methods.values():
            ids.append(operation["operationId"])
            assert operation["summary"]
            assert operation["tags"]
            for status, response in operation["responses"].items():
                if status >= "400" and path != "/readyz":
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
            if path.startswith("/v1/") or path == "/metrics":
                assert operation["security"] == [{"apiKey": []}]
                assert "401" in operation["responses"]
    assert len(ids) == len(set(ids)) > 15
    assert "submit_requests" in ids
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return own + [found for item in part.values() for found in references(item)]
        return [found for item in part for found in references(item)] if isinstance(part, list) else []

    found = references(document)
    assert found
    for reference in found:
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


async def test_a_generated_client_works_against_the_running_app(
    api: Api, document: dict[str, Any], tmp_path: Path
) -> None:
    source = tmp_path / "openapi.json"
    source.write_text(json.dumps(document))
    (tmp_path / "config.yml").write_text("post_hooks: []\npackage_name_override: made\n")
    await run(
        *(str(Path(sys.executable).parent / "openapi-python-client"), "generate", "--fail-on-warning"),
        *("--path", str(source), "--output-path", str(tmp_path / "client"), "--config", str(tmp_path / "config.yml")),
    )
    await api.publish()
    user = api.user()
    said = await run(sys.executable, "-c", CALLS, api.url, user.key, cwd=tmp_path / "client")
    request_id = json.loads(said)
    await answer(api.networks, request_id)
    async with user.calls(api.url) as http:
        assert (await http.get(f"/v1/requests/{request_id}/result")).status_code == 200
