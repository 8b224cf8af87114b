"""`airlock status`: streams, schedules, workers, running workflows and alerts."""

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from cli.errors import FAILED, answer, database_of, explained, networks_here, temporal_of
from cli.output import AsJson, print_json, print_table, say, seconds
from cli.schedules import schedules_now, show_schedules
from cli.streams import show_streams, stream_states_now

if TYPE_CHECKING:
    from configuration.settings import NetworkSettings
    from schedules.views import ScheduleView

Part = TypeVar("Part")


def status(as_json: AsJson = False) -> None:
    """Show health, alerts, streams, schedules, workers and running workflows. Exits with 1 if a part is unknown."""
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
    from models.errors import AirlockError

    errors: list[str] = []

    async def part(work: Awaitable[list[Part]]) -> list[Part]:
        """The result, or an empty list and the error."""
        try:
            return await work
        except AirlockError as error:
            errors.append(str(error))
            return []

    networks = networks_here()
    schedules = await part(schedules_now())
    seen = None if errors else schedules
    health = await part(_health(seen))
    errors += [each["why"] for each in health if each["why"]]
    return {
        "health": {name: each[name] for each in health for name in ("status", "measured_at")},
        "alerts": [item for settings in networks for item in await part(_alerts(settings, seen))],
        "streams": await part(stream_states_now()),
        "schedules": schedules,
        "workers": [item for settings in networks for item in await part(workers_of(settings))],
        "workflows": [item for settings in networks for item in await part(workflows_of(settings))],
        "errors": list(dict.fromkeys(errors)),
    }


async def _health(schedules: "list[ScheduleView] | None") -> list[dict[str, Any]]:
    """The response network's status, the time of its newest measurement, and why that says nothing about now."""
    from configuration.settings import ResponseSettings
    from monitoring.health import health_now

    settings = ResponseSettings.load()
    async with database_of(settings) as engine, engine.connect() as connection:
        found = await health_now(connection, settings.cadences, schedules)
    measured_at = found.measurement and found.measurement["measured_at"]
    return [{"status": found.status, "measured_at": measured_at, "why": found.why_unknown}]


async def _alerts(settings: "NetworkSettings", schedules: "list[ScheduleView] | None") -> list[dict[str, Any]]:
    """Open alerts of this network, and those that its streams and schedules call for now: without a worker nobody
    raises them. ``schedules``: None if Temporal does not answer.
    """
    from configuration.settings import ResponseSettings
    from exchange.link_keys.store import link_keys
    from models.streams import Network
    from monitoring.alerting import judge_stream
    from monitoring.health import health_now
    from monitoring.key_alarms import judge_keys
    from monitoring.measurement_store import open_alerts, stream_states
    from monitoring.waiting import judge_waiting, oldest_waiting

    async with database_of(settings) as engine, engine.begin() as connection:
        stored = await open_alerts(connection)
        wanted = judge_keys((await link_keys(connection)).values(), settings.network)
        if isinstance(settings, ResponseSettings):
            stored = (await health_now(connection, settings.cadences, schedules)).alerts
            paused = {each.id for each in schedules or () if each.paused}
            for state in await stream_states(connection, Network.RESPONSE):
                wanted |= judge_stream(state, settings.cadences, paused)
        oldest = await oldest_waiting(connection, settings.network)
        wanted |= judge_waiting(oldest, settings.network, settings.waiting_alert)
    found = {alert.name: (alert.message, alert.raised_at) for alert in stored}
    found = {name: (message, datetime.now(UTC)) for name, message in wanted.items()} | found
    return [
        {"network": settings.network.value, "name": name, "message": message, "raised_at": raised_at}
        for name, (message, raised_at) in found.items()
    ]


async def workers_of(settings: "NetworkSettings") -> list[dict[str, Any]]:
    """Workers with a recent heartbeat, as in `temporal worker list`."""
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
    """Running workflows, newest first. This replaces `celery inspect active`."""
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

    if found["health"]:
        measured = found["health"]["measured_at"]
        say(f"Health: {found['health']['status']}, measured {f'{ago(measured)} ago' if measured else 'never'}")
        say("")
    alerts = [tuple(alert.values()) for alert in found["alerts"]]
    columns = ("network", "alert", "what happens, and what to do", "since")
    print_table("Alerts", columns, alerts, "none open", "bold red")
    show_streams(found["streams"])
    show_schedules(found["schedules"])
    print_table(
        "Workers",
        ("network", "worker", "task queue", "status", "up for"),
        [
            (item["network"], item["identity"], item["task_queue"], item["status"], ago(item["started_at"]))
            for item in found["workers"]
        ],
        "none is known; a new one appears within seconds. To start one: airlock worker",
    )
    print_table(
        "Workflows under way",
        ("network", "workflow", "id", "for"),
        [(item["network"], item["workflow"], item["id"], ago(item["started_at"])) for item in found["workflows"]],
    )
    for error in found["errors"]:
        say(f"airlock: {error}", err=True)
