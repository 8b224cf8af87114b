"""All commands of `airlock`, and the end of the process."""

import os
import sys
from typing import Annotated, NoReturn

import structlog
import typer

from cli import (
    access,
    bench,
    chaos,
    checks,
    custody,
    epochs,
    keys,
    quarantine,
    requests,
    schedules,
    servers,
    status,
    streams,
    verification,
)
from configuration.version import VERSION

PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["--help"]}
"""For a command that passes its arguments, options too, to another program."""

app = typer.Typer(
    name="airlock",
    help="Two networks, one narrow door. Start with: airlock up",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"airlock {VERSION}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """Options of `airlock` itself."""


app.command()(servers.up)
app.command("test", context_settings=PASSED_ON)(checks.run_checks)
app.command()(servers.worker)
app.command()(servers.api)
app.command()(servers.migrate)
app.command()(status.status)
app.add_typer(schedules.app, name="schedules")
app.command()(streams.streams)
app.add_typer(epochs.app, name="stream")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(requests.app, name="requests")
app.add_typer(requests.callbacks, name="callbacks")
app.command()(streams.preview)
app.command()(verification.verify)
app.command()(custody.trace)
app.command()(chaos.chaos)
app.command()(bench.bench)
app.add_typer(keys.keys, name="keys")
app.add_typer(access.users, name="users")


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is for results
    code: object = 1
    try:
        app(prog_name="airlock")
    except SystemExit as ended:
        code = ended.code
    leave(code if isinstance(code, int) else 0 if code is None else 1)


def leave(code: int) -> NoReturn:
    """Exit, without the interpreter's shutdown if temporalio was used: version 1.35 sometimes crashes in it on Python
    3.11 (``PyGILState_Release``, exit code 134), after all the work is done.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):  # the reader has closed the pipe: `airlock streams | head`
            code = code or 1
    if "temporalio" in sys.modules:
        os._exit(code)
    sys.exit(code)
