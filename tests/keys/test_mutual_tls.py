"""The link over mutual TLS: certificates of an authority of its own, a port of its own, and nobody else let in."""

import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from api.listening import listeners
from api.request import create_app
from api.serving import served as serving
from configuration.settings import RequestSettings, ResponseSettings
from embedded.ports import free_port
from exchange.carriers.http import LinkClient, client_tls
from exchange.errors import LinkUnavailable
from exchange.transfer.delivery import Delivery
from exchange.transfer.sealing import Sealer
from exchange.wire.http_signature import HttpSigner
from models.errors import ConfigurationError
from models.streams import StreamName
from tests.activities.crossing import LINK
from tests.api_request.serving import eventually, settings_for
from tests.conftest import Networks

NOW = dt.datetime.now(dt.UTC)


class Authority:
    """Issues certificates into a directory: ``ca.pem``, ``<name>.pem`` and ``<name>.key``."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self._key = generate_private_key(SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {directory.name}")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = self._builder(self._name, self._key).add_extension(usage, critical=True)
        certificate = builder.add_extension(x509.BasicConstraints(True, 0), critical=True).sign(
            self._key, hashes.SHA256()
        )
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, usage: x509.ObjectIdentifier) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 and its key."""
        key = generate_private_key(SECP256R1())
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
            .add_extension(address, critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        files = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _builder(self, subject: x509.Name, key: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(hours=1))
            .not_valid_after(NOW + dt.timedelta(hours=1))
        )


@dataclass(frozen=True)
class Served:
    """The request network's API with TLS on both ports, a client certificate demanded on the link's."""

    networks: Networks
    authority: Authority
    stranger: Authority
    settings: RequestSettings

    def link(self, tls: dict[str, Path], scheme: str = "https") -> LinkClient:
        """A client of the response network with these of its settings."""
        response = self.networks.response
        settings = ResponseSettings.model_validate(
            {
                "database_url": response.url,
                "keys": response.keys_directory,
                "link_url": f"{scheme}://127.0.0.1:{self.settings.link_port}",
            }
            | tls
        )
        return LinkClient(settings.link_url, HttpSigner(response.keys, LINK), 5, client_tls(settings))

    async def deliver(self, link: LinkClient) -> int:
        """Seal a batch and deliver what there is; gives the number of batches."""
        response = self.networks.response
        sealer = Sealer(response.keys, LINK)
        async with response.engine.begin() as connection:
            await sealer.seal(connection, StreamName.RESULTS, [b'{"n":1}'])
        try:
            return (await Delivery(response.engine, sealer, link).drain(StreamName.RESULTS, lambda _: None)).batches
        finally:
            await link.aclose()


@pytest.fixture
async def tls(networks: Networks, tmp_path: Path) -> AsyncIterator[Served]:
    authority, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate, key = authority.issue("server", ExtendedKeyUsageOID.SERVER_AUTH)
    settings = settings_for(
        networks,
        port=free_port(),
        link_port=free_port(),
        tls_certificate=certificate,
        tls_key=key,
        tls_client_ca=authority.ca,
    )
    async with serving(create_app(settings), listeners(settings)):
        served = Served(networks, authority, stranger, settings)
        async with public(served) as http:

            async def answers() -> bool:
                try:
                    return (await http.get("/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(answers, "the API answers over TLS")
        yield served


def public(served: Served, port: int = 0) -> httpx.AsyncClient:
    """A caller who knows our authority and has no certificate."""
    trusting = ssl.create_default_context(cafile=served.authority.ca)
    url = f"https://127.0.0.1:{port or served.settings.port}"
    return httpx.AsyncClient(base_url=url, verify=trusting, trust_env=False)


def client_certificate(authority: Authority) -> dict[str, Path]:
    certificate, key = authority.issue("client", ExtendedKeyUsageOID.CLIENT_AUTH)
    return {"link_certificate": certificate, "link_certificate_key": key}


async def test_a_batch_is_delivered_to_who_shows_our_authoritys_certificate_and_to_nobody_else(tls: Served) -> None:
    ca = {"link_ca": tls.authority.ca}
    for link in (
        tls.link(ca),
        tls.link(ca | client_certificate(tls.stranger)),
        tls.link({}, "http"),
        tls.link({"link_ca": tls.stranger.ca} | client_certificate(tls.authority)),
        tls.link(client_certificate(tls.authority)),
    ):
        with pytest.raises(LinkUnavailable):
            await tls.deliver(link)
    assert await tls.deliver(tls.link(ca | client_certificate(tls.authority))) == 6


async def test_people_need_no_certificate_and_each_port_serves_its_own(tls: Served) -> None:
    async with public(tls) as http:
        assert (await http.get("/v1/requests")).status_code == 401
        refused = await http.get("/link/v1/streams/results")
        assert (refused.status_code, refused.json()["type"]) == (404, "urn:airlock:problem:not-found")
    trusting = ssl.create_default_context(cafile=tls.authority.ca)
    shown = client_certificate(tls.authority)
    trusting.load_cert_chain(shown["link_certificate"], shown["link_certificate_key"])
    url = f"https://127.0.0.1:{tls.settings.link_port}"
    async with httpx.AsyncClient(base_url=url, verify=trusting, trust_env=False) as http:
        assert (await http.get("/link/v1/streams/results")).status_code == 401
        assert (await http.get("/v1/requests")).status_code == 404
    async with public(tls, tls.settings.link_port) as http:
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await http.get("/link/v1/streams/results")


@pytest.mark.parametrize(
    ("incomplete", "problem"),
    [
        ({"tls_certificate": "c.pem"}, "go together"),
        ({"tls_key": "c.key"}, "go together"),
        ({"tls_certificate": "c.pem", "tls_key": "c.key", "tls_client_ca": "ca.pem"}, "AIRLOCK_REQUEST_LINK_PORT"),
        ({"link_port": 1234, "tls_client_ca": "ca.pem"}, "needs a certificate"),
    ],
)
def test_half_a_configuration_of_the_server_is_refused(
    networks: Networks, incomplete: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        settings_for(networks, **incomplete)


def test_half_a_configuration_of_the_client_is_refused_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", "postgresql://a:b@127.0.0.1/c")
    monkeypatch.setenv("AIRLOCK_RESPONSE_LINK_CERTIFICATE", "c.pem")
    with pytest.raises(ConfigurationError, match="LINK_CERTIFICATE_KEY go together"):
        ResponseSettings.load()
    monkeypatch.setenv("AIRLOCK_RESPONSE_LINK_CERTIFICATE_KEY", "c.key")
    with pytest.raises(ConfigurationError, match="does not say https"):
        ResponseSettings.load()
    monkeypatch.setenv("AIRLOCK_RESPONSE_LINK_URL", "https://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=r"AIRLOCK_RESPONSE_LINK_CERTIFICATE: c\.pem cannot be used"):
        client_tls(ResponseSettings.load())


async def test_a_certificate_that_is_not_there_ends_the_start_with_a_sentence(networks: Networks) -> None:
    settings = settings_for(networks, port=1, tls_certificate="no.pem", tls_key="no.key")
    with pytest.raises(ConfigurationError, match=r"the file no\.pem does not exist"):
        async with serving(create_app(settings), listeners(settings)):
            pass
