"""Temporal behind mutual TLS, as in production: an end of TLS that wants a client certificate, before a real server."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.testing import WorkflowEnvironment

from configuration.settings import RequestSettings
from models.errors import ConfigurationError
from orchestration.client import connect_temporal, sdk_runtime
from tests.keys.test_mutual_tls import Authority
from tests.schedules.conftest import temporal

__all__ = ["temporal"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
async def address(temporal: WorkflowEnvironment, authority: Authority) -> AsyncIterator[str]:
    """Where TLS ends, in front of the server."""
    host, _, port = temporal.client.service_client.config.target_host.partition(":")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*authority.issue("temporal", ExtendedKeyUsageOID.SERVER_AUTH))
    context.set_alpn_protocols(["h2"])

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65536):
                target.write(chunk)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, behind[1]), copy(behind[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def settings(address: str, **tls: Path) -> RequestSettings:
    return RequestSettings.model_validate(
        {"database_url": "postgresql://nowhere/airlock", "temporal_address": address, **tls}
    )


async def asks(told: RequestSettings) -> str:
    """The server's version, as a client with these settings learns it."""
    client = await connect_temporal(told, sdk_runtime("OFF"), identity="test")
    return (await client.workflow_service.get_system_info(GetSystemInfoRequest())).server_version


async def test_airlock_shows_temporal_its_certificate(address: str, authority: Authority) -> None:
    certificate, key = authority.issue("airlock", ExtendedKeyUsageOID.CLIENT_AUTH)
    told = settings(address, temporal_ca=authority.ca, temporal_certificate=certificate, temporal_certificate_key=key)
    assert await asks(told)


async def test_without_it_or_with_another_authoritys_it_is_kept_out(
    address: str, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = Authority(tmp_path / "stranger").issue("stranger", ExtendedKeyUsageOID.CLIENT_AUTH)
    strangers = {"temporal_certificate": certificate, "temporal_certificate_key": key}
    for tls in ({}, {"temporal_ca": authority.ca}, {"temporal_ca": authority.ca, **strangers}):
        with pytest.raises(RuntimeError):
            await asks(settings(address, **tls))


async def test_a_certificate_without_its_key_or_file_is_a_sentence(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TEMPORAL_CERTIFICATE and AIRLOCK_REQUEST_TEMPORAL_CERTIFICATE_KEY go"):
        settings("127.0.0.1:1", temporal_certificate=authority.ca)
    with pytest.raises(ConfigurationError, match=r"AIRLOCK_REQUEST_TEMPORAL_CA .* cannot be read: No such file"):
        await asks(settings("127.0.0.1:1", temporal_ca=tmp_path / "missing.pem"))
