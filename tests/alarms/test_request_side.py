"""What the request network, which opens no connection, can say of the link: silence, and whom it refused and why."""

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from api.request.link_health import LinkMetrics, Refusals, silences
from exchange.errors import ClockSkew
from exchange.wire.http_signature import HEADER, HttpSigner
from tests.api_request.serving import serving, settings_for
from tests.conftest import Networks


def state(stream: str, contact: float | None, direction: str = "in") -> dict[str, object]:
    return {"stream": stream, "direction": direction, "last_contact_seconds": contact}


@pytest.mark.parametrize(("stream", "bound"), [("settings", 150.0), ("results", 300.0), ("health", 750.0)])
def test_silence_is_told_after_two_and_a_half_cadences(stream: str, bound: float) -> None:
    assert silences([state(stream, bound)]) == []
    assert silences([state(stream, bound + 1)]) == [f"{stream}: the response network is silent for {bound + 1:.0f} s"]


def test_what_was_never_heard_of_and_what_goes_out_is_not_silent() -> None:
    assert silences([state("settings", None), state("requests", 9999.0, "out")]) == []


def test_refusals_are_told_by_kind_and_measured() -> None:
    refusals, registry = Refusals(), CollectorRegistry()
    for _ in range(2):
        refusals.record(ClockSkew("whatever a stranger wrote"))
    assert [line.startswith("calls were refused: clock-skew, 2 in all") for line in refusals.recent()] == [True]
    LinkMetrics(registry).refresh([state("settings", 7.0), state("results", None)], refusals)
    assert registry.get_sample_value("airlock_link_refused_calls", {"kind": "clock-skew"}) == 2
    assert registry.get_sample_value("airlock_link_silence_seconds", {"stream": "settings"}) == 7


async def test_a_call_that_is_refused_is_counted_by_what_is_wrong_with_it(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    apps: list[FastAPI] = []
    async with (
        serving(settings_for(networks, redis_database=7), apps.append) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        counts = apps[0].state.services.refusals.counts
        target = "/link/v1/streams/results"
        assert (await http.get(target)).status_code == 401
        assert dict(counts) == {"bad-signature": 1}
        with monkeypatch.context() as patched:
            patched.setattr("exchange.wire.http_signature.time.time", lambda: 1_000_000_000.0)
            header = HttpSigner(networks.response.keys, "test").sign_request("GET", target, b"")
        refused = await http.get(target, headers={HEADER: header})
        assert (refused.status_code, refused.json()["type"]) == (401, "urn:airlock:problem:clock-skew")
        assert dict(counts) == {"bad-signature": 1, "clock-skew": 1}
        sound = HttpSigner(networks.response.keys, "test").sign_request("GET", target, b"")
        assert (await http.get(target, headers={HEADER: sound})).status_code == 200
        assert sum(counts.values()) == 2
