"""The connection to a network's Temporal."""

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Literal

from temporalio.api.failure.v1 import Failure
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.runtime import LogForwardingConfig, LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from configuration.settings import NetworkSettings
from models.errors import AirlockError, describe
from models.streams import Network

TASK_TIMEOUT = timedelta(seconds=8)
"""Of a workflow's task, in which its short work is done as well: after this, that of a worker which was killed is given
to another one. The default of 10 s is longer than work that beats is left with a dead worker."""


TRACE_CHARACTERS = 600
"""Of a stack trace that Temporal keeps of an unforeseen error; the worker's log has all of it."""


class OneSentence(DefaultFailureConverter):
    """Failures as one sentence, without the errors that caused them.

    Temporal keeps some 4 KB of an activity's last failure. Three nested causes with their stack traces, as a driver's
    errors have, are more: all that is left of them is "Failure exceeds size limit."
    """

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Failures that Temporal itself made, such as a failed activity in a workflow, keep their cause."""
        super().to_failure(exception, payload_converter, failure)
        if isinstance(exception, FailureError) and not isinstance(exception, ApplicationError):
            return
        failure.ClearField("cause")
        if isinstance(exception, ApplicationError | AirlockError):  # raised on purpose: the sentence is enough
            failure.stack_trace = ""
        else:
            failure.message = describe(exception)
            failure.stack_trace = failure.stack_trace[-TRACE_CHARACTERS:]


DATA = replace(pydantic_data_converter, failure_converter_class=OneSentence)


def sdk_runtime(level: Literal["WARN", "ERROR", "OFF"], heartbeat: timedelta | None = timedelta(seconds=60)) -> Runtime:
    """The Rust half of Temporal's SDK. Its lines of this level and above go into Airlock's log, in its form.

    ``heartbeat``: how often a worker tells Temporal that it lives.
    """
    return Runtime(
        telemetry=TelemetryConfig(
            logging=LoggingConfig(
                filter=TelemetryFilter(core_level=level, other_level="OFF" if level == "OFF" else "ERROR"),
                forwarding=LogForwardingConfig(
                    logging.getLogger("temporalio.core"),
                    append_target_to_name=False,
                    prepend_target_on_message=False,
                    append_log_fields_to_message=False,  # `configuration.logs` makes them fields
                ),
            )
        ),
        worker_heartbeat_interval=heartbeat,
    )


def task_queue(network: Network) -> str:
    """The one task queue of a network's workflows and activities."""
    return f"airlock-{network}"


async def connect_temporal(settings: NetworkSettings, runtime: Runtime, *, identity: str, lazy: bool = False) -> Client:
    """A client in the network's namespace. A lazy one connects at its first call, so that who holds it starts without
    Temporal; otherwise raises ``RuntimeError`` when Temporal does not answer.
    """
    api_key = settings.temporal_api_key.get_secret_value() if settings.temporal_api_key else None
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        api_key=api_key,
        tls=api_key is not None,
        data_converter=DATA,
        lazy=lazy,
        runtime=runtime,
        identity=identity,
    )
