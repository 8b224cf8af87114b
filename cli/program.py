"""All commands of `airlock`, and the end of the process."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

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
from cli.output import say
from configuration.logs import configure_logs
from configuration.version import VERSION
from models.error_text import stack_trace
from models.printable import printable

PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": ["--help"]}
"""For a command that passes its arguments, options too, to another program."""


class Commands(TyperGroup):
    """Makes usage errors printable: they quote the arguments."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _printable_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        with _printable_errors():
            return super().invoke(ctx)


@contextmanager
def _printable_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error
            error.message = printable(error.message)  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="airlock",
    cls=Commands,
    help="Two networks, one narrow door. Start with: airlock up",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"airlock {VERSION}")
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
    configure_logs("console", stream=sys.stderr)  # standard output is for results
    code: object = 1
    try:
        app(prog_name="airlock")
    except SystemExit as ended:
        code = ended.code
    except Exception as error:  # a defect: Python's own report would quote what the error quotes
        for line in stack_trace(error).splitlines():
            say(line, err=True)
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
