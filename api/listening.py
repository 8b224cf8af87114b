"""Where an API listens: its address, its TLS, and which paths are served there.

The link may have a port of its own. There, and only there, TLS can demand a client certificate: on the port that people
call it would shut everybody out.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import problem_response
from configuration.settings import NetworkSettings, RequestSettings
from models.errors import ConfigurationError, NotFound

LINK = "/link/"


@dataclass(frozen=True)
class Tls:
    """A certificate with its key and, where callers have to show one of their own, who must have issued that."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Listener:
    """One port. ``link``: None serves everything, True only the link, False everything else."""

    host: str
    port: int
    tls: Tls | None = None
    link: bool | None = None

    @property
    def address(self) -> str:
        """As a URL, for people."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def options(self) -> dict[str, Any]:
        """For granian's ``Server``. Raises `ConfigurationError` naming a file that cannot be read."""
        if self.tls is None:
            return {}
        for file in filter(None, (self.tls.certificate, self.tls.key, self.tls.client_ca)):
            if not file.is_file():
                raise ConfigurationError(f"Cannot serve on {self.address}: there is no file {file}")
        return {
            "ssl_cert": self.tls.certificate,
            "ssl_key": self.tls.key,
            "ssl_ca": self.tls.client_ca,
            "ssl_client_verify": self.tls.client_ca is not None,
        }


def listeners(settings: NetworkSettings) -> list[Listener]:
    """Where this network's API listens."""
    if not isinstance(settings, RequestSettings):
        return [Listener(settings.host, settings.port)]
    certificate, key = settings.tls_certificate, settings.tls_key
    tls = Tls(certificate, key) if certificate and key else None
    if not settings.link_port:
        return [Listener(settings.host, settings.port, tls)]
    link_tls = Tls(certificate, key, settings.tls_client_ca) if certificate and key else None
    return [
        Listener(settings.host, settings.port, tls, link=False),
        Listener(settings.host, settings.link_port, link_tls, link=True),
    ]


class OnlyThere:
    """Lets through what belongs to one of the two ports; the rest is not there."""

    def __init__(self, app: ASGIApp, link: bool) -> None:
        self._app = app
        self._link = link

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(LINK) is self._link:
            await self._app(scope, receive, send)
            return
        detail = "The link is not served on this port" if not self._link else "Only the link is served on this port"
        await problem_response(NotFound.kind, NotFound.title, NotFound.status, detail)(scope, receive, send)
