"""Requests, parameters and results as types: what they take, what they refuse, and how they are said."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg.pgproto.pgproto
import orjson
import pytest
from pydantic import ValidationError

from models.errors import InvalidInput
from models.executors import executor_spec
from models.parameters import ParameterCheck
from models.requests import RequestRecord, RequestStatus, RequestSubmission, ResultBody
from models.results import closed_body, with_source
from models.settings import SettingsRecord
from models.streams import BatchRef, Network, StreamName

SCHEMA = {
    "type": "object",
    "properties": {
        "iata": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "near": {"type": "object", "properties": {"latitude": {"type": "number", "maximum": 90}}},
        "when": {"type": "string", "format": "date"},
        "list": {"type": "array", "items": {"type": "integer"}},
    },
    "required": ["iata"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, "params.iata"),
        ({"iata": "ist"}, "params.iata"),
        ({"iata": "IST", "more": 1}, "params.more"),
        ({"iata": "IST", "near": {"latitude": 91}}, "params.near.latitude"),
        ({"iata": "IST", "when": "yesterday"}, "params.when"),
        ({"iata": "IST", "list": [1, "two"]}, "params.list.1"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named_by_its_path(params: dict[str, Any], field: str) -> None:
    problem = ParameterCheck(SCHEMA).problem(params)
    assert problem is not None
    found, message = problem
    assert found == field
    assert message


def test_the_first_parameter_that_does_not_fit_is_named_and_those_that_fit_are_not() -> None:
    problem = ParameterCheck(SCHEMA).problem({"iata": 5, "near": {"latitude": 91}, "list": [1]})
    assert problem is not None
    assert problem[0] in ("params.iata", "params.near.latitude")
    assert ParameterCheck(SCHEMA).problem({"iata": "IST"}) is None


@pytest.mark.parametrize(
    "schema", [{"type": 7}, {"pattern": "("}, {"$ref": "https://example.com/schema.json"}, {"$ref": "#/nowhere"}]
)
def test_what_is_no_schema_or_would_have_to_be_fetched_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="not a usable JSON Schema"):
        ParameterCheck(schema)


RECORD: dict[str, Any] = {
    "request_id": "0198c0de-0000-7000-8000-000000000001",
    "user_id": "0198c0de-0000-7000-8000-000000000002",
    "type": "airport",
    "submitted_at": "2026-01-01T00:00:00Z",
}


def test_a_record_of_the_requests_stream_is_read_as_it_was_written() -> None:
    record = RequestRecord.model_validate_json(orjson.dumps(RECORD | {"params": {"iata": "IST"}, "priority": 9}))
    assert (record.kind, record.type, record.params, record.priority) == ("request", "airport", {"iata": "IST"}, 9)
    assert RequestRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "Airport"},
        {"type": "a\0b"},
        {"type": "a" * 65},
        {"priority": 0},
        {"submitted_at": "2026-01-01T00:00:00"},
        {"submitted_at": "0001-01-01T00:00:00+23:00"},
        {"deadline_at": "9999-12-31T23:59:59-23:00"},
        {"params": []},
        {"kind": "order"},
        {"executor": {}},
    ],
)
def test_a_record_that_no_part_could_hold_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RequestRecord.model_validate_json(orjson.dumps(RECORD | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "No"},
        {"priority": 11},
        {"deadline": 0},
        {"deadline": float("inf")},
        {"callback_url": "ftp://x/"},
        {"callback_url": "javascript:1"},
        {"name": "x" * 201},
        {"more": 1},
    ],
)
def test_a_submission_that_makes_no_sense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RequestSubmission.model_validate({"type": "airport"} | changes)


def test_four_statuses_are_final() -> None:
    assert {status.value for status in RequestStatus if status.is_final} == {
        "completed",
        "failed",
        "expired",
        "cancelled",
    }


@pytest.mark.parametrize("closed", ["expired", "cancelled"])
@pytest.mark.parametrize("make_id", [UUID, asyncpg.pgproto.pgproto.UUID])
def test_a_closed_request_has_a_result_that_says_why(closed: str, make_id: Any) -> None:
    """Its id may come from the database's driver, which has a type of its own for it."""
    request_id = make_id(str(uuid4()))
    body = ResultBody.model_validate_json(closed_body(request_id, closed, datetime(2026, 1, 1, tzinfo=UTC)))
    assert (str(body.request_id), body.status, body.data, body.returned) == (str(request_id), closed, [], 0)
    assert body.error is not None
    assert body.error.reason == closed
    assert body.executed_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_source_is_added_to_a_result_without_touching_its_other_bytes() -> None:
    body = b'{"request_id":"x" , "data":[{"b" : 1.50}]} \n'
    assert with_source(body, "cache") == b'{"request_id":"x" , "data":[{"b" : 1.50}],"source":"cache"}'


@pytest.mark.parametrize(
    "record",
    [
        b'{"kind":"setting","name":"A","value":1,"version":1}',
        b'{"kind":"setting","name":"a","value":1,"version":1,"visibility":"secret"}',
        b'{"kind":"request-type","name":"t","version":1,"executor":{}}',
        b'{"kind":"api-key","sha256":"no","user_id":"0198c0de-0000-7000-8000-000000000002","user":"a","role":"user"}',
        b'{"kind":"secret"}',
    ],
)
def test_a_settings_record_that_says_more_or_less_than_it_may_is_refused(record: bytes) -> None:
    with pytest.raises(ValidationError):
        SettingsRecord.validate_json(record)


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "sql", "source": "s", "query": ""},
        {"kind": "http", "url": "file:///etc/passwd"},
        {"kind": "http", "url": "http://x", "rows": "hits"},
        {"kind": "python", "function": "os.system"},
        {"kind": "fax"},
        {"kind": "sql", "source": "s", "query": "SELECT 1", "more": 1},
    ],
)
def test_an_executor_that_makes_no_sense_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        executor_spec.validate_python(spec)


def test_every_stream_has_one_sender_and_the_other_network_receives() -> None:
    assert {stream: stream.sender for stream in StreamName} == {
        StreamName.SETTINGS: Network.RESPONSE,
        StreamName.REQUESTS: Network.REQUEST,
        StreamName.RESULTS: Network.RESPONSE,
        StreamName.HEALTH: Network.RESPONSE,
    }
    assert all(stream.receiver is not stream.sender for stream in StreamName)
    assert [stream for stream in StreamName if stream.is_snapshot] == [StreamName.SETTINGS, StreamName.HEALTH]


def test_a_batch_has_the_same_workflow_id_at_every_try() -> None:
    batch = BatchRef(stream=StreamName.RESULTS, epoch=2, sequence=17, records=5)
    assert batch.workflow_id("apply") == "apply-results-2.17"
    assert batch.workflow_id("apply") == batch.model_copy(update={"records": 0}).workflow_id("apply")
