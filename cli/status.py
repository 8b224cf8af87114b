"""Everything at a glance: streams, schedules, workers, workflows under way, alerts."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from cli.errors import FAILED, answer, database_of, explained, networks_here, temporal_of
from cli.output import AsJson, print_json, print_table, seconds
from cli.schedules import schedules_now, show_schedules
from cli.streams import show_streams, stream_states_now

if TYPE_CHECKING:
    from configuration.settings import NetworkSettings
    from schedules.views import ScheduleView

Part = TypeVar("Part")


def status(as_json: AsJson = False) -> None:
    """Streams, schedules, workers, workflows under way and alerts. Exits with 1 when a part cannot be asked."""
    from configuration.settings import ResponseSettings

    with explained():
        ResponseSettings.load()
    found = answer(_gather)
    if as_json:
        views = [view.model_dump(mode="json") for view in found["schedules"]]
        print_json(found | {"schedules": views})
    else:
        _show(found)
    if found["errors"]:
        raise typer.Exit(FAILED)


async def _gather() -> dict[str, Any]:
    errors: list[str] = []
    none: list[ScheduleView] = []
    schedules = await _or_error(schedules_now, none, errors)
    alerts: list[dict[str, Any]] = []
    workers: list[dict[str, Any]] = []
    workflows: list[dict[str, Any]] = []
    for settings in networks_here():
        alerts += await _or_error(partial(_alerts, settings, schedules), [], errors)
        workers += await _or_error(partial(workers_of, settings), [], errors)
        workflows += await _or_error(partial(workflows_of, settings), [], errors)
    return {
        "alerts": alerts,
        "streams": await _or_error(stream_states_now, [], errors),
        "schedules": schedules,
        "workers": workers,
        "workflows": workflows,
        "errors": list(dict.fromkeys(errors)),
    }


async def _or_error(ask: Callable[[], Awaitable[Part]], otherwise: Part, errors: list[str]) -> Part:
    from models.errors import AirlockError

    try:
        return await ask()
    except AirlockError as error:
        errors.append(str(error))
        return otherwise


async def _alerts(settings: "NetworkSettings", schedules: "list[ScheduleView]") -> list[dict[str, Any]]:
    """What is open in this network, and what the streams call for now: without a worker nobody else would say it."""
    from configuration.settings import ResponseSettings
    from models.streams import Network
    from monitoring.alerting import judge_stream
    from monitoring.measurement_store import open_alerts, stream_states

    wanted: dict[str, str] = {}
    async with database_of(settings) as engine, engine.begin() as connection:
        found = {alert.name: (alert.message, alert.raised_at) for alert in await open_alerts(connection)}
        if isinstance(settings, ResponseSettings):
            paused = {each.id for each in schedules if each.paused}
            for state in await stream_states(connection, Network.RESPONSE):
                wanted |= judge_stream(state, settings.cadences, paused)
    found = {name: (message, datetime.now(UTC)) for name, message in wanted.items()} | found
    return [
        {"network": settings.network.value, "name": name, "message": message, "raised_at": raised_at}
        for name, (message, raised_at) in found.items()
    ]


async def workers_of(settings: "NetworkSettings") -> list[dict[str, Any]]:
    """Workers that sent a heartbeat lately, as `temporal worker list` has them."""
    from temporalio.api.enums.v1 import WorkerStatus
    from temporalio.api.workflowservice.v1 import ListWorkersRequest

    from schedules.answers import RPC_TIMEOUT, temporal_answers

    client = await temporal_of(settings)
    with temporal_answers(client):
        listed = await client.workflow_service.list_workers(
            ListWorkersRequest(namespace=client.namespace), timeout=RPC_TIMEOUT, retry=True
        )
    return [
        {
            "network": settings.network.value,
            "identity": worker.worker_identity,
            "task_queue": worker.task_queue,
            "status": WorkerStatus.Name(worker.status).removeprefix("WORKER_STATUS_").lower().replace("_", "-"),
            "started_at": worker.start_time.ToDatetime(tzinfo=UTC).isoformat(),
        }
        for worker in sorted(listed.workers, key=lambda worker: (worker.worker_identity, worker.task_queue))
    ]


async def workflows_of(settings: "NetworkSettings", most: int = 50) -> list[dict[str, Any]]:
    """Workflows under way, newest first: what `celery inspect active` showed."""
    from schedules.answers import RPC_TIMEOUT, temporal_answers

    client = await temporal_of(settings)
    with temporal_answers(client):
        return [
            {
                "network": settings.network.value,
                "workflow": found.workflow_type,
                "id": found.id,
                "started_at": found.start_time.isoformat(),
            }
            async for found in client.list_workflows("ExecutionStatus = 'Running'", limit=most, rpc_timeout=RPC_TIMEOUT)
        ]


def _show(found: dict[str, Any]) -> None:
    def ago(moment: str) -> str | None:
        return seconds(float(round((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())))

    alerts = [tuple(alert.values()) for alert in found["alerts"]]
    print_table(
        "Alerts", ("network", "alert", "what happens, and what to do", "since"), alerts, "none open", "bold red"
    )
    show_streams(found["streams"])
    show_schedules(found["schedules"])
    print_table(
        "Workers",
        ("network", "worker", "task queue", "status", "up for"),
        [
            (item["network"], item["identity"], item["task_queue"], item["status"], ago(item["started_at"]))
            for item in found["workers"]
        ],
        "none has been heard of; one that was just started is, within seconds. To start one: airlock worker",
    )
    print_table(
        "Workflows under way",
        ("network", "workflow", "id", "for"),
        [(item["network"], item["workflow"], item["id"], ago(item["started_at"])) for item in found["workflows"]],
    )
    for error in found["errors"]:
        typer.echo(f"airlock: {error}", err=True)
