"""`airlock up`: runs both networks and all their servers on one machine, until Ctrl-C."""

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configuration.home import home_directory
from embedded.boot import Boot
from embedded.errors import CannotStart
from embedded.home import Home
from embedded.terminal import Terminal
from models.error_text import stack_trace
from models.errors import AirlockError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that stop `up`; SIGHUP comes when the terminal is closed."""


@dataclass(frozen=True)
class UpOptions:
    """Options of the command line."""

    free_ports: bool = False
    """Use free ports instead of the configured ones."""
    redis_tcp: bool = False
    """Open a TCP port of Redis too."""
    samples: bool = True
    """Submit the sample requests once everything runs."""
    home: Path | None = None
    """``AIRLOCK_HOME`` by default."""


async def up(options: UpOptions) -> int:
    """Start all parts, run until SIGINT, SIGTERM or SIGHUP, then stop them. Returns the exit code."""
    terminal = Terminal()
    os.umask(0o077)  # the home is for its owner only, whatever the shell's umask
    try:
        with Home.open(options.home or home_directory()) as home:
            boot = Boot(
                home,
                terminal,
                free_ports=options.free_ports,
                redis_tcp=options.redis_tcp,
                samples=options.samples,
            )
            return await _until_stopped(boot, terminal)
    except CannotStart as error:
        terminal.say(str(error), bad=True)
        return 1


async def _until_stopped(boot: Boot, terminal: Terminal) -> int:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            boot.supervisor.hurry()
        else:
            terminal.say("\nStopping. Ctrl-C once more to hurry.")
            asked.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal)
    running = asyncio.create_task(_boot_and_stay(boot))
    stopping = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        failure = running.exception() if running.done() else None
    finally:
        running.cancel()
        stopping.cancel()
        await asyncio.wait({running, stopping})
        await boot.stop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)
    if failure is None:
        terminal.say("Everything is stopped.")
        return 0
    if isinstance(failure, AirlockError):
        terminal.say(str(failure), bad=True)
    else:
        terminal.say(stack_trace(failure), bad=True)
    return 1


async def _boot_and_stay(boot: Boot) -> None:
    show_addresses(await boot.run())
    await asyncio.Event().wait()


def show_addresses(addresses: dict[str, Any]) -> None:
    """Print the addresses and a sample request. The keys are shown to a terminal only: a log would keep them."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    request, response = addresses["request_api"], addresses["response_api"]
    to_terminal = sys.stdout.isatty()
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, namespace in addresses["namespaces"].items():
        table.add_row(f"Web UI, {name}", f"{addresses['temporal_ui']}/namespaces/{namespace}/workflows")
    table.add_row("request network", f"{request}   docs: {request}/docs")
    table.add_row("response network", f"{response}   docs: {response}/docs")
    table.add_row("Temporal", f"{addresses['temporal']}   namespaces: {', '.join(addresses['namespaces'])}")
    for name in ("Redis", "PostgreSQL"):
        table.add_row(name, "its address and password are in up.json")
    if to_terminal:
        table.add_row("sample user's key", addresses["api_key"])
        table.add_row("operator's key", addresses["operator_key"])
    key = addresses["api_key"] if to_terminal else "$KEY"
    table.add_row("all of this" if to_terminal else "keys and all of this", f"{addresses['home']}/up.json")
    with contextlib.suppress(OSError):  # the terminal may be gone
        console = Console(highlight=False, soft_wrap=True, markup=False)
        console.width = max(console.width, 100)
        console.print(Panel(table, title="Airlock", subtitle="Ctrl-C stops everything", expand=False))
        console.print("Try it:", style="bold")
        console.print(
            f'  curl -s {request}/v1/requests -H "Authorization: Bearer {key}"'
            """ -H 'Content-Type: application/json' -d '{"type": "airport", "params": {"iata": "IST"}}'"""
        )
