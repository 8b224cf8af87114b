"""schemathesis tries both OpenAPI documents against the APIs at work: everything that a document says has to be so.

The link's operations are signed calls: what they answer to somebody without the other network's key is what is tried.
"""

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckFunction
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from api.request import create_app as create_request_app
from api.response import create_app as create_response_app
from configuration.settings import RequestSettings, ResponseSettings
from tests.security.conftest import Airlock

NOWHERE = {"database_url": "postgresql://nobody@127.0.0.1:1/none"}
bounded = settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

BEYOND_A_SCHEMA = {
    "POST /v1/requests": {"type", "params"},  # which types there are, and their parameters, an operator decides
    # A visibility is needed where there is no setting of that name yet; any JSON, but for integers beyond 64 bits.
    "PUT /v1/settings/{name}": {"visibility", "value"},
    "POST /v1/schedules/{id}/backfill": {"start", "end"},  # what is past, the clock decides
    "POST /v1/request-types": {"params_schema", "limits", "executor"},  # sources, hosts, modules: the configuration's
    "PUT /v1/request-types/{name}": {"params_schema", "limits", "executor"},
}
"""Fields whose being right depends on what no JSON Schema can say. A refusal that names one of these alone, and with a
422, is no refusal of data that the document calls right; every other check stays."""


def document(app: FastAPI) -> BaseSchema:
    """The app's document; making an app opens nothing."""
    return schemathesis.openapi.from_dict(app.openapi(), config=SchemathesisConfig.from_dict({"seed": 1}))


request_api = document(create_request_app(RequestSettings.model_validate(NOWHERE)))
response_api = document(create_response_app(ResponseSettings.model_validate(NOWHERE)))


@pytest.fixture
def key(airlock: Airlock) -> dict[str, str]:
    return {"Authorization": f"Bearer {airlock.operator.key}"}


@request_api.parametrize()
@bounded
def test_the_request_network_does_what_its_document_says(
    case: schemathesis.Case[Any], airlock: Airlock, key: dict[str, str]
) -> None:
    ask(case, airlock.request.url, key)


@response_api.parametrize()
@bounded
def test_the_response_network_does_what_its_document_says(
    case: schemathesis.Case[Any], airlock: Airlock, key: dict[str, str]
) -> None:
    ask(case, airlock.response.url, key)


def ask(case: schemathesis.Case[Any], url: str, headers: dict[str, str]) -> None:
    """Make the call and every check of its answer."""
    response = case.call(url, headers=headers)
    told: dict[str, Any] = {"base_url": url, "headers": dict(headers)}
    excluded: list[CheckFunction] = [positive_data_acceptance] if is_beyond_a_schema(case, response) else []
    if set(case.query or {}) - {parameter.name for parameter in case.operation.query}:
        excluded.append(negative_data_rejection)  # a parameter that nobody knows is passed over, as on the web
    case.validate_response(response, headers=headers, excluded_checks=excluded, transport_kwargs=told)


def is_beyond_a_schema(case: schemathesis.Case[Any], response: Response) -> bool:
    """Whether this is a refusal for one of the reasons in `BEYOND_A_SCHEMA`."""
    if response.status_code != 422:
        return False
    problem = response.json()
    if problem["type"].endswith(":idempotency-key-reused"):
        return True  # one key is drawn twice, with two bodies
    fields = [error["field"] for error in problem.get("errors") or []]
    parts = [[part for part in field.split(".") if not part.isdigit()] for field in fields]
    return bool(parts) and all(part and part[0] in BEYOND_A_SCHEMA.get(case.operation.label, ()) for part in parts)
