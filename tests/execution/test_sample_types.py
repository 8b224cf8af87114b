"""The three sample request types over the really loaded airports, checked against the package and plain arithmetic."""

import math
from collections.abc import AsyncIterator
from typing import Any

import airportsdata
import pytest
from pydantic import SecretStr

from execution.registry import ExecutableType, Executors
from execution.sql import SqlSources
from models.requests import Limits, ResultBody
from sample.request_types import REQUEST_TYPES, SOURCE
from tests.execution.asking import ask, failure, kind, sql
from tests.execution.conftest import Source

AIRPORTS = list(airportsdata.load("ICAO").values())
EARTH_KM = 6371.0088


@pytest.fixture
async def sample(executors: Executors, source: Source) -> AsyncIterator[Executors]:
    """With the reader's rights, as `airlock up` configures the source."""
    opened = SqlSources({SOURCE: SecretStr(source.url)}, 2)
    yield Executors(opened, executors.http, executors.python, executors.cache)
    await opened.aclose()


def sample_type(name: str) -> ExecutableType:
    found = next(item for item in REQUEST_TYPES if item["name"] == name)
    limits = Limits.model_validate(found["limits"])
    return kind(sql(found["query"], SOURCE), limits, found["params_schema"])


async def near(sample: Executors, latitude: float, longitude: float, radius: float, limit: int = 1000) -> ResultBody:
    params = {"latitude": latitude, "longitude": longitude, "radius_km": radius, "limit": limit}
    _, body = await ask(sample, sample_type("airports-near"), params)
    assert body.error is None
    return body


def kilometres(latitude: float, longitude: float, airport: Any) -> float:
    """The angle between two unit vectors, by its tangent: another way than the query's haversine, and exact at every
    angle (T. Vincenty, Survey Review 23, 1975).
    """
    here, there = _unit(latitude, longitude), _unit(airport["lat"], airport["lon"])
    cross = math.hypot(
        here[1] * there[2] - here[2] * there[1],
        here[2] * there[0] - here[0] * there[2],
        here[0] * there[1] - here[1] * there[0],
    )
    return EARTH_KM * math.atan2(cross, sum(a * b for a, b in zip(here, there, strict=True)))


def _unit(latitude: float, longitude: float) -> tuple[float, float, float]:
    phi, lam = math.radians(latitude), math.radians(longitude)
    return math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)


PLACES = [
    (46.2, 6.15, 60),
    (41.26, 28.74, 0.5),
    (0, 0, 1500),
    (90, 0, 1800),
    (90, 180, 1800),
    (-90, -180, 3500),
    (-17, 180, 600),
    (-17, -180, 600),
    (-17, 179.99, 600),
    (66, -179.5, 500),
    (89.9, 45, 2000),
    (12.34, 56.78, 20038),
    (90, 0, 20038),
    (-90, 0, 20016),
    (0, 180, 20000),
]


@pytest.mark.parametrize(("latitude", "longitude", "radius"), PLACES)
async def test_airports_near_are_those_within_the_great_circle_distance_nearest_first(
    sample: Executors, latitude: float, longitude: float, radius: float
) -> None:
    expected = sorted((kilometres(latitude, longitude, airport), airport["icao"]) for airport in AIRPORTS)
    within = [(distance, icao) for distance, icao in expected if distance <= radius]
    body = await near(sample, latitude, longitude, radius)
    assert body.total == len(within)
    assert body.returned == min(len(within), 1000)
    assert body.truncated == (len(within) > 1000)
    for row, (distance, _) in zip(body.data, within, strict=False):
        assert row["distance_km"] == pytest.approx(distance, abs=0.002)
    distances = {icao: distance for distance, icao in expected}
    assert all(distances[row["icao"]] == pytest.approx(row["distance_km"], abs=0.002) for row in body.data)


@pytest.mark.parametrize(("latitude", "longitude"), [(90.0, 0.0), (-90.0, 77.0)])
async def test_an_airport_on_the_very_edge_is_found(sample: Executors, latitude: float, longitude: float) -> None:
    """At a pole every way is a meridian: the edge of the circle is the edge of the band of latitudes."""
    nearest = (await near(sample, latitude, longitude, 5000, 200)).data
    for row in nearest:
        angle = math.radians(abs(latitude - row["latitude"]))
        radius = EARTH_KM * 2 * math.asin(math.sqrt(math.sin(angle / 2) ** 2))
        found = await near(sample, latitude, longitude, max(radius * (1 + 1e-12), 0.001))
        assert row["icao"] in [item["icao"] for item in found.data]


async def test_both_names_of_the_date_line_and_of_a_pole_are_the_same_place(sample: Executors) -> None:
    assert (await near(sample, -17, 180, 600)).data == (await near(sample, -17, -180, 600)).data
    assert (await near(sample, 90, 0, 1800)).data == (await near(sample, 90, 123, 1800)).data


@pytest.mark.parametrize(
    "params",
    [
        {"latitude": 90.1, "longitude": 0, "radius_km": 1},
        {"latitude": 0, "longitude": -180.5, "radius_km": 1},
        {"latitude": 0, "longitude": 0, "radius_km": 0},
        {"latitude": 0, "longitude": 0, "radius_km": 20039},
        {"latitude": "0", "longitude": 0, "radius_km": 1},
        {"latitude": 0, "longitude": 0, "radius_km": 1, "limit": 0},
        {"latitude": 0, "longitude": 0},
        {"latitude": 0, "longitude": 0, "radius_km": 1, "more": 1},
    ],
)
async def test_a_place_that_is_none_is_refused(sample: Executors, params: dict[str, Any]) -> None:
    assert sample_type("airports-near").check.problem(params) is not None
    assert (await failure(sample, sample_type("airports-near"), params))[0] == "invalid-params"


async def test_an_airport_is_found_by_its_code_with_all_that_is_known(sample: Executors) -> None:
    _, body = await ask(sample, sample_type("airport"), {"iata": "IST"})
    [known] = [airport for airport in AIRPORTS if airport["iata"] == "IST"]
    assert body.data == [
        {
            "iata": "IST",
            "icao": known["icao"],
            "name": known["name"],
            "city": known["city"],
            "subdivision": known["subd"],
            "country": "TR",
            "elevation_ft": known["elevation"],
            "latitude": known["lat"],
            "longitude": known["lon"],
            "time_zone": "Europe/Istanbul",
        }
    ]


async def test_a_code_that_nobody_has_gives_no_rows(sample: Executors) -> None:
    _, body = await ask(sample, sample_type("airport"), {"iata": "ZZZ"})
    assert (body.status, body.data, body.total) == ("completed", [], 0)


@pytest.mark.parametrize("iata", ["ist", "ISTA", "", "IS1", "'--", 5, None])
async def test_what_is_no_code_is_refused(sample: Executors, iata: object) -> None:
    assert (await failure(sample, sample_type("airport"), {"iata": iata}))[0] == "invalid-params"


async def test_the_airports_of_a_country_come_by_name_as_many_as_are_asked_for(sample: Executors) -> None:
    known = [airport for airport in AIRPORTS if airport["country"] == "IS"]
    _, everything = await ask(sample, sample_type("airports-in-country"), {"country": "IS"})
    assert (everything.returned, everything.total) == (len(known), len(known))
    assert {row["icao"] for row in everything.data} == {airport["icao"] for airport in known}
    _, three = await ask(sample, sample_type("airports-in-country"), {"country": "IS", "limit": 3})
    assert three.data == everything.data[:3]
    assert (three.total, three.truncated) == (len(known), True)


async def test_a_country_with_more_airports_than_the_limit_says_how_many_there_are(sample: Executors) -> None:
    _, body = await ask(sample, sample_type("airports-in-country"), {"country": "US"})
    assert (body.returned, body.truncated) == (1000, True)
    assert body.total == sum(airport["country"] == "US" for airport in AIRPORTS)
