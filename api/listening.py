"""The addresses on which an API listens: port, TLS and served paths.

The link may have its own port. Only there can TLS demand a client certificate, since callers of the public port have
none.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import error_problem
from configuration.settings import NetworkSettings, RequestSettings
from models.errors import ConfigurationError, NotFound

LINK = "/link/"


@dataclass(frozen=True)
class Tls:
    """A certificate and its key. ``client_ca``: the CA of the client certificates that callers must present."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True)
class Listener:
    """One port. ``link``: True serves only the link, False everything else, None both."""

    host: str
    port: int
    tls: Tls | None = None
    link: bool | None = None

    @property
    def address(self) -> str:
        """The address as a URL."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def options(self) -> dict[str, Any]:
        """Options for granian's ``Server``. Raises `ConfigurationError` if a file does not exist."""
        if self.tls is None:
            return {}
        for file in filter(None, (self.tls.certificate, self.tls.key, self.tls.client_ca)):
            if not file.is_file():
                raise ConfigurationError(f"Cannot serve on {self.address}: the file {file} does not exist")
        return {
            "ssl_cert": self.tls.certificate,
            "ssl_key": self.tls.key,
            "ssl_ca": self.tls.client_ca,
            "ssl_client_verify": self.tls.client_ca is not None,
        }


def listeners(settings: NetworkSettings) -> list[Listener]:
    """The listeners of this network's API."""
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


class PathFilter:
    """Serves either the link or everything else; answers 404 to other paths."""

    def __init__(self, app: ASGIApp, link: bool) -> None:
        self._app = app
        self._link = link

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(LINK) is self._link:
            await self._app(scope, receive, send)
            return
        detail = "The link is not served on this port" if not self._link else "Only the link is served on this port"
        await error_problem(NotFound(detail))(scope, receive, send)
