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
class Listener:
    """One port. ``link``: True serves only the link, False everything else, None both.

    ``certificate`` and ``key`` enable TLS. ``client_ca`` issues the client certificates that callers must present.
    """

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    link: bool | None = None

    @property
    def address(self) -> str:
        """The address as a URL."""
        return f"{'https' if self.certificate else 'http'}://{self.host}:{self.port}"

    def options(self) -> dict[str, Any]:
        """Options for granian's ``Server``. Raises `ConfigurationError` if a file does not exist."""
        if self.certificate is None:
            return {}
        for file in filter(None, (self.certificate, self.key, self.client_ca)):
            if not file.is_file():
                raise ConfigurationError(f"Cannot serve on {self.address}: the file {file} does not exist")
        return {
            "ssl_cert": self.certificate,
            "ssl_key": self.key,
            "ssl_ca": self.client_ca,
            "ssl_client_verify": self.client_ca is not None,
        }


def listeners(settings: NetworkSettings) -> list[Listener]:
    """The listeners of this network's API."""
    if not isinstance(settings, RequestSettings):
        return [Listener(settings.host, settings.port)]
    host, certificate, key = settings.host, settings.tls_certificate, settings.tls_key
    if not settings.link_port:
        return [Listener(host, settings.port, certificate, key)]
    return [
        Listener(host, settings.port, certificate, key, link=False),
        Listener(host, settings.link_port, certificate, key, settings.tls_client_ca, link=True),
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
