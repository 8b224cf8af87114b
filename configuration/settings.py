"""Settings of each network's processes.

Every variable begins with ``AIRLOCK_REQUEST_`` or ``AIRLOCK_RESPONSE_``, so that ``python worker.py`` can run both
networks in one process. Order of precedence: environment, `.env` of the home, `.env` of the clone, secret files in
``/run/secrets``, the addresses of a running ``airlock up``, defaults.
"""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from configuration.cadences import DEFAULT_CADENCES, Cadence, check_cadences
from configuration.home import dotenv_files, home_directory, read_up_file
from configuration.redis_url import redis_database
from models.errors import ConfigurationError
from models.streams import Network

SECRET_FILES = Path("/run/secrets")
REDIS_DATABASE = {Network.REQUEST: 0, Network.RESPONSE: 1}
"""Redis databases of the two networks in ``airlock up``, which runs one server for both."""


class UpFileSource(PydanticBaseSettingsSource):
    """Reads addresses from the `up.json` of a running ``airlock up``."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        up = read_up_file()
        try:
            return self._addresses(up) if up else {}
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ConfigurationError(
                f"{home_directory() / 'up.json'} lacks what this version expects ({error}): start airlock up again"
            ) from None

    def _addresses(self, up: dict[str, Any]) -> dict[str, Any]:
        network: Network = self.settings_cls.network  # type: ignore[attr-defined]
        api = str(up[f"{network}_api"])
        found: dict[str, Any] = {
            "database_url": up["databases"][network],
            "redis_url": redis_database(str(up["redis"]), REDIS_DATABASE[network]),
            "temporal_address": up["temporal"],
            "temporal_namespace": up["namespaces"][network],
            "port": int(api.rsplit(":", 1)[1].rstrip("/")),
        }
        if network is Network.RESPONSE:
            found |= {"link_url": up["request_api"], "sources": up.get("sources", {})}
        return found


class NetworkSettings(BaseSettings):
    """Settings that both networks have."""

    network: ClassVar[Network]

    model_config = SettingsConfigDict(extra="ignore", secrets_dir=SECRET_FILES if SECRET_FILES.is_dir() else None)

    database_url: SecretStr = Field(description="PostgreSQL, as postgresql://user:password@host:port/database")
    database_connections: int = Field(10, ge=2, le=200, description="Largest number of connections per process")
    redis_url: SecretStr = Field(SecretStr("redis://127.0.0.1:6380/0"), description="Cache; may be lost at any moment")
    temporal_address: str = Field("127.0.0.1:7233", description="Temporal frontend, host:port")
    temporal_namespace: str = Field("", description="Temporal namespace; the network's name by default")
    temporal_api_key: SecretStr | None = Field(None, description="API key for Temporal Cloud; turns TLS on")
    temporal_ca: Path | None = Field(None, description="PEM with the authority of Temporal's certificate; turns TLS on")
    temporal_certificate: Path | None = Field(None, description="PEM with our certificate for Temporal; turns TLS on")
    temporal_certificate_key: Path | None = Field(None, description="PEM with the private key of that certificate")
    host: str = Field("127.0.0.1", description="Address that the API listens on")
    port: int = Field(0, ge=0, le=65535, description="Port that the API listens on")
    keys: Path = Field(Path(), description="Directory with signing.pem and trusted/*.pem")
    link_id: str = Field("airlock", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Name of the link, on both sides")
    retention: float = Field(
        7 * 86400, gt=0, description="Seconds that delivered payloads, requests, results and history are kept"
    )
    waiting_alert: float = Field(300.0, gt=0, description="Seconds after which a request without result is an alert")
    clock_skew: float = Field(300.0, gt=0, description="Seconds by which the other side's clock may differ")
    drain_seconds: float = Field(30.0, ge=0, le=600, description="Seconds that a stopping worker gives its work")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        env_files = DotEnvSettingsSource(settings_cls, env_file=dotenv_files())
        return init_settings, env_settings, env_files, file_secret_settings, UpFileSource(settings_cls)

    @model_validator(mode="after")
    def _temporal_tls_is_complete(self) -> Self:
        if (self.temporal_certificate is None) != (self.temporal_certificate_key is None):
            name = f"AIRLOCK_{self.network.upper()}_TEMPORAL_CERTIFICATE"
            raise ValueError(f"{name} and {name}_KEY go together")
        return self

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql://")
        return value

    def model_post_init(self, _context: object) -> None:
        if not self.temporal_namespace:
            self.temporal_namespace = self.network.value
        if self.keys == Path():
            self.keys = home_directory() / "keys" / self.network

    @classmethod
    def load(cls) -> Self:
        """Read the settings; raises `ConfigurationError` with one line per variable that is missing or wrong."""
        try:
            return cls()
        except ValidationError as error:
            raise ConfigurationError(_explain(cls, error)) from None
        except SettingsError as error:  # quotes the field and the source, not the value
            raise ConfigurationError(f"the {cls.network} network is not configured: {error}; is it JSON?") from None


class RequestSettings(NetworkSettings):
    """The exposed network."""

    network = Network.REQUEST
    model_config = SettingsConfigDict(env_prefix="AIRLOCK_REQUEST_")

    port: int = Field(8000, ge=0, le=65535, description="Port that the API listens on")
    callback_private_addresses: bool = Field(
        False, description="Whether callbacks may go to private and loopback addresses"
    )
    callback_give_up: float = Field(86400.0, gt=0, description="Seconds until an undeliverable callback is given up")
    result_cache_seconds: int = Field(3600, ge=1, description="Seconds that a result stays in Redis")
    tls_certificate: Path | None = Field(None, description="PEM with the API's certificate; turns TLS on")
    tls_key: Path | None = Field(None, description="PEM with the private key of that certificate")
    tls_client_ca: Path | None = Field(None, description="PEM with the authority of the link's client certificates")
    link_port: int = Field(0, ge=0, le=65535, description="A port for the link alone; 0: the API's port")

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("AIRLOCK_REQUEST_TLS_CERTIFICATE and AIRLOCK_REQUEST_TLS_KEY go together")
        if self.tls_client_ca is not None and not (self.tls_certificate and self.link_port):
            raise ValueError(
                "AIRLOCK_REQUEST_TLS_CLIENT_CA needs a certificate and AIRLOCK_REQUEST_LINK_PORT: on the API's own port"
                " it would shut out callers, who have no client certificate"
            )
        return self


class ResponseSettings(NetworkSettings):
    """The protected network."""

    network = Network.RESPONSE
    model_config = SettingsConfigDict(env_prefix="AIRLOCK_RESPONSE_")

    port: int = Field(8001, ge=0, le=65535, description="Port that the API listens on")
    link_url: str = Field(
        "http://127.0.0.1:8000", pattern=r"^https?://", description="The request network's API, as seen from here"
    )
    link_timeout: float = Field(30.0, gt=0, description="Seconds that one call over the link may take")
    link_ca: Path | None = Field(None, description="PEM with the authority of the request network's certificate")
    link_certificate: Path | None = Field(None, description="PEM with our certificate, for mutual TLS")
    link_certificate_key: Path | None = Field(None, description="PEM with the private key of that certificate")
    sources: dict[str, SecretStr] = Field(
        default_factory=dict,
        description='Databases that the sql executor may read, as JSON: {"name": "postgresql://…"}',
    )
    executions: int = Field(8, ge=1, le=256, description="Requests executed at the same time, per worker")
    python_executors: list[str] = Field(
        default_factory=list, description="Modules whose functions the python executor may call, as JSON"
    )
    http_hosts: list[str] = Field(
        default_factory=list, description="host or host:port that the http executor may call, as JSON"
    )
    cadences: dict[str, Cadence] = Field(
        default_factory=lambda: dict(DEFAULT_CADENCES), description="Cadence of each schedule, as JSON; see cadences.py"
    )

    @model_validator(mode="after")
    def _link_tls_is_complete(self) -> Self:
        if (self.link_certificate is None) != (self.link_certificate_key is None):
            raise ValueError("AIRLOCK_RESPONSE_LINK_CERTIFICATE and AIRLOCK_RESPONSE_LINK_CERTIFICATE_KEY go together")
        if (self.link_ca or self.link_certificate) and not self.link_url.startswith("https://"):
            raise ValueError("certificates are set for the link, but AIRLOCK_RESPONSE_LINK_URL does not say https://")
        return self

    @field_validator("cadences")
    @classmethod
    def _cadences_are_complete(cls, value: dict[str, Cadence]) -> dict[str, Cadence]:
        return check_cadences(value)


SETTINGS: dict[Network, type[RequestSettings] | type[ResponseSettings]] = {
    Network.REQUEST: RequestSettings,
    Network.RESPONSE: ResponseSettings,
}


def _explain(cls: type[NetworkSettings], error: ValidationError) -> str:
    prefix = cls.model_config.get("env_prefix", "")
    lines = [f"the {cls.network} network is not configured:"]
    for item in error.errors(include_input=False, include_url=False):
        variable = prefix + "__".join(str(part) for part in item["loc"]).upper()
        problem = "not set" if item["type"] == "missing" else item["msg"].removeprefix("Value error, ")
        lines.append(f"  {variable}: {problem}" if item["loc"] else f"  {problem}")  # or it concerns several variables
    lines.append("Set it in the environment, in .env or as a secret file, or start everything with ./airlock up.")
    return "\n".join(lines)
