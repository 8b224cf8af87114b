"""The positions of the streams, and a preview of the bytes that would cross."""

from typing import Annotated, Any

import typer

from cli.errors import answer, response_database
from cli.naming import StreamText
from cli.output import AsJson, print_bytes, print_json, print_table, seconds

COLUMNS = ("stream", "way", "batch", "delivered", "applied", "pending", "in flight", "oldest", "heard", "state")


def streams(as_json: AsJson = False) -> None:
    """Show position and backlog of each stream, as the response network sees them."""
    states = answer(stream_states_now)
    if as_json:
        print_json(states)
    else:
        show_streams(states)


async def stream_states_now() -> list[dict[str, Any]]:
    """Each stream as the response network sees it."""
    from models.streams import Network
    from monitoring.measurement_store import stream_states

    async with response_database() as connection:
        return await stream_states(connection, Network.RESPONSE)


def show_streams(states: list[dict[str, Any]]) -> None:
    """Print streams as a table."""
    print_table("Streams", COLUMNS, [_row(state) for state in states])


def _row(state: dict[str, Any]) -> tuple[object, ...]:
    trouble = [
        f"stopped: {state['stopped']}" if state["stopped"] else "",
        f"{state['quarantined']} quarantined" if state["quarantined"] else "",
    ]
    return (
        state["stream"],
        state["direction"],
        f"{state['epoch']}.{state['sequence']}",
        state["delivered"],
        state["applied"],
        state["pending_records"],
        state["in_flight_records"],
        seconds(state["oldest_age_seconds"]),
        seconds(state["last_contact_seconds"]),
        ", ".join(filter(None, trouble)) or "good",
    )


def preview(
    stream: Annotated[
        StreamText,
        typer.Argument(metavar="STREAM", help="One that leaves the response network: settings, results or health."),
    ] = "settings",
) -> None:
    """Print the exact bytes that would cross now: NDJSON, one record per line. Seals and sends nothing."""
    from api.response.preview import preview as bytes_of
    from models.streams import StreamName

    async def work() -> bytes:
        async with response_database() as connection:
            return await bytes_of(connection, StreamName(stream))

    print_bytes(answer(work))
