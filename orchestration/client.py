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
from temporalio.service import TLSConfig

from configuration.settings import NetworkSettings
from models.errors import AirlockError, ConfigurationError, describe
from models.streams import Network

TRACE_CHARACTERS = 600
"""How much of an unexpected error's stack trace goes to Temporal; the worker's log has all of it."""


class OneSentence(DefaultFailureConverter):
    """Converts errors to failures of one sentence, without their causes.

    Temporal keeps some 4 KB of an activity's last failure. A database error with three nested causes and their stack
    traces is larger, and Temporal would show only "Failure exceeds size limit."
    """

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        """Convert. Failures that Temporal made itself, such as a failed activity in a workflow, keep their cause."""
        super().to_failure(exception, payload_converter, failure)
        if isinstance(exception, FailureError) and not isinstance(exception, ApplicationError):
            return
        failure.ClearField("cause")
        if isinstance(exception, ApplicationError | AirlockError):  # raised on purpose: the sentence says enough
            failure.stack_trace = ""
        else:
            failure.message = describe(exception)
            failure.stack_trace = failure.stack_trace[-TRACE_CHARACTERS:]


DATA = replace(pydantic_data_converter, failure_converter_class=OneSentence)


def sdk_runtime(level: Literal["WARN", "ERROR", "OFF"], heartbeat: timedelta | None = timedelta(seconds=60)) -> Runtime:
    """The SDK's Rust runtime. Its log lines of this level and above go to Airlock's log.

    ``heartbeat``: how often a worker reports to Temporal that it lives.
    """
    return Runtime(
        telemetry=TelemetryConfig(
            logging=LoggingConfig(
                filter=TelemetryFilter(core_level=level, other_level="OFF" if level == "OFF" else "ERROR"),
                forwarding=LogForwardingConfig(
                    logging.getLogger("temporalio.core"),
                    append_target_to_name=False,
                    prepend_target_on_message=False,
                    append_log_fields_to_message=False,  # `configuration.logs` adds them as fields
                ),
            )
        ),
        worker_heartbeat_interval=heartbeat,
    )


def task_queue(network: Network) -> str:
    """The one task queue of a network's workflows and activities."""
    return f"airlock-{network}"


def _tls(settings: NetworkSettings) -> TLSConfig | None:
    """The certificates of the settings; None if there are none."""
    files = (settings.temporal_ca, settings.temporal_certificate, settings.temporal_certificate_key)
    if not any(files):
        return None
    try:
        ca, certificate, key = (file.read_bytes() if file else None for file in files)
    except OSError as error:
        variables = f"AIRLOCK_{settings.network.upper()}_TEMPORAL_CA and …_TEMPORAL_CERTIFICATE"
        raise ConfigurationError(f"{variables}: {error.filename} cannot be read: {error.strerror}") from None
    return TLSConfig(server_root_ca_cert=ca, client_cert=certificate, client_private_key=key)


async def connect_temporal(settings: NetworkSettings, runtime: Runtime, *, identity: str, lazy: bool = False) -> Client:
    """A client in the network's namespace. Raises ``RuntimeError`` when Temporal does not answer, and
    `ConfigurationError` for a certificate that cannot be read.

    A lazy client connects at its first call, so that its process starts without Temporal.
    """
    api_key = settings.temporal_api_key.get_secret_value() if settings.temporal_api_key else None
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        api_key=api_key,
        tls=_tls(settings) or api_key is not None,
        data_converter=DATA,
        lazy=lazy,
        runtime=runtime,
        identity=identity,
    )
