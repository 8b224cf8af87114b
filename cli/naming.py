"""Values of arguments and options: the names of networks and streams. Typer refuses any other, with exit code 2."""

from typing import Literal

NetworkName = Literal["request", "response"]
StreamText = Literal["settings", "requests", "results", "health"]
