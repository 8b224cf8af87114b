"""TCP ports on 127.0.0.1: which are free, which process has the others, and which are opened on request only."""

import random
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import psutil

from embedded.errors import CannotStart

CHOICE = range(20000, 32000)
"""Free ports are chosen from here, below those of outgoing connections on Linux (32768 and up). Such a connection could
take a server's port while the server restarts."""


@dataclass(frozen=True)
class Ports:
    """The ports of one `airlock up`."""

    request: int
    response: int
    temporal: int
    temporal_ui: int
    redis: int | None = None
    """None, as for the next two: not opened. Redis and PostgreSQL then listen on unix sockets only."""
    postgres: int | None = None
    temporal_http: int | None = None


DEFAULTS = Ports(request=8000, response=8001, temporal=7233, temporal_ui=8233)
REDIS = 6380
"""Port of Redis when it is asked for without a number."""
ALWAYS = tuple(name for name, port in vars(DEFAULTS).items() if port is not None)


def variable(name: str) -> str:
    """The environment variable that sets a port of `Ports`."""
    return f"AIRLOCK_{name.upper()}_PORT"


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not hold a port
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(but: Collection[int] = ()) -> int:
    """A free port that is not in ``but``."""
    for _ in range(100):
        port = random.choice(CHOICE)  # noqa: S311
        if port not in but and is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports(*opened: str) -> Ports:
    """Different free ports for all that is always open, and for those of the others that are named."""
    chosen: dict[str, int] = {}
    for name in (*ALWAYS, *opened):
        chosen[name] = free_port(chosen.values())
    return Ports(**chosen)


def holder(port: int) -> str | None:
    """The process that listens on the port, as ``name (pid 123)``; None if that is unknown."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return None
    for connection in connections:
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return None


def asked_for(environment: Mapping[str, str]) -> list[str]:
    """Ports that are not open by default, and whose variable is set."""
    return [name for name in vars(DEFAULTS) if name not in ALWAYS and environment.get(variable(name), "").strip()]


def configured_ports(environment: Mapping[str, str]) -> Ports:
    """The defaults, or ``AIRLOCK_…_PORT``. Raises `CannotStart` for a value that is no port, or is there twice."""
    chosen: dict[str, int] = {}
    for name in (*ALWAYS, *asked_for(environment)):
        text = environment.get(variable(name), "").strip() or str(getattr(DEFAULTS, name))
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise CannotStart(f"{variable(name)} is {text!r}, which is no port. Set it to a number from 1 to 65535.")
        port = int(text)
        for other, taken in chosen.items():
            if taken == port:
                raise CannotStart(f"{variable(other)} and {variable(name)} are both {port}. Give each its own port.")
        chosen[name] = port
    return Ports(**chosen)


def taken_ports(ports: Ports) -> list[str]:
    """The names of the ports that are in use."""
    return [name for name, port in vars(ports).items() if port is not None and not is_free(port)]


def check_free(ports: Ports) -> None:
    """Raise `CannotStart` with a sentence for every port that is in use."""
    sentences = []
    for name in taken_ports(ports):
        port = getattr(ports, name)
        by = holder(port)
        sentences.append(
            f"Port {port} is taken{f' by {by}' if by else ''}."
            f" Stop that process, set {variable(name)} to another port, or use --free-ports."
        )
    if sentences:
        raise CannotStart("\n".join(sentences))
