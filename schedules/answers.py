"""Turns Temporal's errors into Airlock's. Calls have a short timeout, because a person or a start-up waits for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from models.errors import ConfigurationError, InvalidInput, NotFound, Unavailable

RPC_TIMEOUT = timedelta(seconds=5)
"""For a call with its retries; Temporal answers in milliseconds."""

_AWAY = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
)
_REFUSED = (RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.PERMISSION_DENIED)


@contextmanager
def temporal_answers(client: Client, schedule_id: str = "") -> Iterator[None]:
    """Raise `Unavailable`, `NotFound`, `InvalidInput` or `ConfigurationError` instead of Temporal's own errors."""
    address = client.service_client.config.target_host
    try:
        yield
    except RPCError as error:
        if error.status in _AWAY:
            raise Unavailable(f"Temporal at {address} does not answer ({error.message}); try again") from error
        if error.status in _REFUSED:
            raise ConfigurationError(
                f"Temporal at {address} refuses namespace {client.namespace!r}: {error.message}"
            ) from error
        if error.status is RPCStatusCode.NOT_FOUND:
            if "namespace" in error.message.lower():
                raise ConfigurationError(f"Temporal at {address} has no namespace {client.namespace!r}") from error
            raise NotFound(f"The schedule {schedule_id} does not exist: a response worker makes it") from error
        if error.status is RPCStatusCode.INVALID_ARGUMENT:
            raise InvalidInput(f"Temporal does not accept the schedule {schedule_id}: {error.message}") from error
        raise
    except RuntimeError as error:  # a lazy client could not connect for its first call
        if "connect" not in str(error):
            raise
        raise Unavailable(f"Temporal at {address} does not answer; try again") from error
