"""Every operation of both APIs, read from their OpenAPI documents, so that a new one cannot be forgotten."""

from dataclasses import dataclass

from api.request import create_app as create_request_app
from api.response import create_app as create_response_app
from configuration.settings import RequestSettings, ResponseSettings

NOWHERE = {"database_url": "postgresql://nobody@127.0.0.1:1/none"}
SOME_ID = "01900000-0000-7000-8000-000000000000"


class _Filled(dict[str, str]):
    """Numbers, most of them: epochs, batches, records."""

    def __missing__(self, name: str) -> str:
        return "1"


FILLED = {"request_id": SOME_ID, "stream": "results", "name": "banner", "id": "export-results"}

request_app = create_request_app(RequestSettings.model_validate(NOWHERE))
response_app = create_response_app(ResponseSettings.model_validate(NOWHERE))


@dataclass(frozen=True)
class Operation:
    """One operation of one API."""

    network: str
    method: str
    template: str
    takes_json: bool

    def path(self, **filled: str) -> str:
        """With something in the place of every parameter."""
        return self.template.format_map(_Filled(FILLED | filled))

    def __str__(self) -> str:
        return f"{self.network} {self.method} {self.template}"


def operations() -> list[Operation]:
    """All of them."""
    return [
        Operation(
            network, method.upper(), path, "application/json" in operation.get("requestBody", {}).get("content", {})
        )
        for network, app in (("request", request_app), ("response", response_app))
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


OPERATIONS = operations()
