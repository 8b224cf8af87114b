"""The requests of the load: a pure function of a seed. Answers are cheap, so that the faults dominate."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

AIRPORTS = (
    *("IST", "SAW", "GVA", "ZRH", "KEF", "SIN", "LHR", "LGW", "JFK", "EWR", "NRT", "HND", "SYD", "MEL", "GRU", "CPT"),
    *("CDG", "ORY", "FRA", "MUC", "AMS", "MAD", "BCN", "FCO", "VIE", "ARN", "OSL", "CPH", "HEL", "DUB", "LIS", "ATH"),
    *("DXB", "DOH", "DEL", "BOM", "BKK", "HKG", "ICN", "PEK", "LAX", "SFO", "ORD", "ATL", "YYZ", "MEX", "BOG", "NBO"),
    *("ZZZ", "QQQ"),
)
"""The last two do not exist: their answers have no rows."""
COUNTRIES = ("IS", "CH", "TR", "SG", "NZ", "FR", "JP", "KE", "CL", "EE", "XX")
SINGLE = 0.7
"""Share of submissions with one request; the others are lists of 2 to `LONGEST`."""
LONGEST = 8
FAILS = 0.04
"""Share of requests that are accepted and must fail, because the database refuses their parameters."""
REFUSED = 0.02
"""Share of submissions that must be refused."""
REPEATED = 0.08
"""Share of submissions that are sent twice with the same key: half of them at the same time, half after the answer."""


@dataclass(frozen=True)
class Submission:
    """One call of `POST /v1/requests`."""

    number: int
    at: float
    """Seconds since the beginning of the load."""
    key: str
    """Its Idempotency-Key."""
    body: Any
    """A request, or a list of them."""
    refused: bool
    """Whether it must be answered with 422."""
    repeat: str | None
    """Whether it is sent twice: ``together``, ``afterwards`` or None."""

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests as a list."""
        return self.body if isinstance(self.body, list) else [self.body]

    @property
    def content(self) -> bytes:
        """The bytes of the body, the same for each repetition."""
        return json.dumps(self.body, separators=(",", ":")).encode()


def submissions(seed: int, rate: float, seconds: float) -> Iterator[Submission]:
    """The submissions of a run, in order, ``rate`` requests a second."""
    chance = random.Random(f"airlock load {seed}")  # noqa: S311, it must be the same again, not secret
    number, asked = 0, 0
    while (at := asked / rate) < seconds:
        size = 1 if chance.random() < SINGLE else chance.randint(2, LONGEST)
        refused = chance.random() < REFUSED
        requests = [_request(chance) for _ in range(size)]
        if refused:
            requests[-1] = {"type": "airport", "params": {"iata": "no code"}}
        repeat = chance.choice(("together", "afterwards")) if chance.random() < REPEATED else None
        body = requests[0] if size == 1 and chance.random() < 0.9 else requests
        yield Submission(number, at, f"chaos-{seed}-{number}", body, refused, repeat)
        number, asked = number + 1, asked + size


def _request(chance: random.Random) -> dict[str, Any]:
    draw = chance.random()
    params: dict[str, Any]
    if draw < FAILS:
        # Valid by the schema, but its division underflows in the database.
        kind, params = "airports-near", {"latitude": 46.2, "longitude": 6.15, "radius_km": 5e-324}
    elif draw < 0.75:
        kind, params = "airport", {"iata": chance.choice(AIRPORTS)}
    elif draw < 0.9:
        kind, params = "airports-in-country", {"country": chance.choice(COUNTRIES), "limit": chance.randint(1, 10)}
    else:
        kind, params = (
            "airports-near",
            {
                "latitude": round(chance.uniform(-45, 65), 2),
                "longitude": round(chance.uniform(-170, 170), 2),
                "radius_km": chance.randint(20, 150),
                "limit": chance.randint(1, 10),
            },
        )
    request: dict[str, Any] = {"type": kind, "params": params}
    if chance.random() < 0.2:
        request["priority"] = chance.randint(1, 10)
    return request


@dataclass(frozen=True)
class SettingChange:
    """One call of `PUT /v1/settings/{name}`."""

    name: str
    value: Any
    visibility: str


def setting_changes(seed: int) -> Iterator[SettingChange]:
    """An endless sequence of changes of five settings, one of them secret."""
    chance = random.Random(f"airlock settings {seed}")  # noqa: S311
    number = 0
    while True:
        name = chance.choice(("one", "two", "three", "four", "secret"))
        value = chance.choice((number, f"change {number}", {"change": number, "of": [name]}, [number, None, True]))
        yield SettingChange(f"chaos.{name}", value, "secret" if name == "secret" else "public")
        number += 1
