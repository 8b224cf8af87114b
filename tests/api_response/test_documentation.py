"""The OpenAPI document: complete, and good enough for a client generator."""

import json
import subprocess
import sys
from pathlib import Path

from tests.api_response.conftest import Api


async def test_errors_are_described_as_problem_documents(api: Api) -> None:
    document = (await api.http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert {"Problem", "FieldProblem"} <= schemas.keys()
    assert not {"HTTPValidationError", "ValidationError"} & schemas.keys()
    ids = []
    for path, methods in document["paths"].items():
        for operation in methods.values():
            ids.append(operation["operationId"])
            assert operation["summary"]
            assert operation["tags"]
            for status, response in operation["responses"].items():
                if status >= "400" and path != "/readyz":
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
            if path not in ("/healthz", "/readyz"):
                assert operation["security"] == [{"apiKey": []}]
                assert {"401", "403", "503"} <= operation["responses"].keys()
    assert len(ids) == len(set(ids))
    assert "list_settings" in ids


async def test_a_client_generator_takes_it_without_a_warning(api: Api, tmp_path: Path) -> None:
    source = tmp_path / "openapi.json"
    source.write_text(json.dumps(api.app.openapi()))
    # The generator knows no NDJSON and has to be told that it is bytes.
    overrides = "content_type_overrides: {application/x-ndjson: application/octet-stream}\n"
    (tmp_path / "config.yml").write_text("post_hooks: []\n" + overrides)
    program = Path(sys.executable).parent / "openapi-python-client"
    arguments = ["generate", "--path", str(source), "--output-path", str(tmp_path / "client"), "--fail-on-warning"]
    ended = subprocess.run(
        [str(program), *arguments, "--config", str(tmp_path / "config.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert len(list((tmp_path / "client").rglob("list_settings.py"))) == 1
