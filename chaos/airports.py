"""The right answer to each request, computed from the airports' package and not by Airlock's SQL."""

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from typing import Any

import airportsdata

from models.wording import counted

EARTH_KM = 6371.0088
"""The Earth's mean radius (IUGG), in kilometres."""
SMALLEST = 1e-307
"""A smaller radius, divided by the Earth's, underflows double precision, so the database must refuse it."""
MOST_ROWS = 1000
LONGEST_QUOTE = 600
"""Characters of a quoted result."""
_NAMES = {
    "iata": "iata",
    "icao": "icao",
    "name": "name",
    "city": "city",
    "subdivision": "subd",
    "country": "country",
    "elevation_ft": "elevation",
    "latitude": "lat",
    "longitude": "lon",
    "time_zone": "tz",
}
"""A row's columns → the package's fields."""


@dataclass(frozen=True)
class Expected:
    """The right result."""

    status: str
    rows: Sequence[Mapping[str, Any]] = field(default=())
    total: int | None = None
    reason: str | None = None

    def difference(self, body: Mapping[str, Any]) -> tuple[str, str] | None:
        """The expected and the found value of the first difference; None if there is none."""
        wanted: dict[str, Any] = {"status": self.status}
        if self.reason is None:
            truncated = len(self.rows) != self.total
            wanted |= {"error": None, "returned": len(self.rows), "total": self.total, "truncated": truncated}
        for name, item in wanted.items():
            if body.get(name) != item:
                return f"{name} {item}", f"{body.get(name)} ({_short(body)})"
        if self.reason is not None:
            found = (body.get("error") or {}).get("reason")
            return None if found == self.reason else (f"reason {self.reason}", f"{found}")
        data = body.get("data")
        if not isinstance(data, list) or len(data) != len(self.rows):
            return f"{counted(len(self.rows), 'row')}", _short(data)
        for number, (row, found) in enumerate(zip(self.rows, data, strict=True)):
            if found != row:
                return f"row {number} {dict(row)}", _short(found)
        return None


def _short(item: object) -> str:
    text = str(item)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]} …"


def expected(kind: str, params: Mapping[str, Any]) -> Expected:
    """The right result of a request of a sample type. Raises `KeyError` for another type."""
    rows = {"airport": _airport, "airports-in-country": _in_country, "airports-near": _near}[kind](params)
    if rows is None:
        return Expected("failed", reason="invalid-params")
    return Expected("completed", rows[: params.get("limit", MOST_ROWS)], len(rows))


def _airport(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _airports().by_iata.get(params["iata"], [])


def _in_country(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _airports().by_country.get(params["country"], [])


def _near(params: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Nearest first, by the haversine formula; None if the database must refuse the radius as too small."""
    latitude, longitude, radius = (float(params[name]) for name in ("latitude", "longitude", "radius_km"))
    if radius < SMALLEST:
        return None
    north, band = math.radians(latitude), math.degrees(radius / EARTH_KM)
    found = []
    airports = _airports()
    south, beyond = bisect_left(airports.latitudes, latitude - band), bisect_right(airports.latitudes, latitude + band)
    for airport in airports.northwards[south:beyond]:
        half_chord = (
            math.sin(math.radians(airport["latitude"] - latitude) / 2) ** 2
            + math.cos(north)
            * math.cos(math.radians(airport["latitude"]))
            * math.sin(math.radians(airport["longitude"] - longitude) / 2) ** 2
        )
        distance = 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half_chord)))
        if distance <= radius:
            found.append(airport | {"distance_km": _metres(distance)})
    return sorted(found, key=lambda row: (row["distance_km"], row["icao"]))


def _metres(kilometres: float) -> float:
    """Rounded to metres as PostgreSQL does: to the 15 digits of its conversion of a double, halves away from zero."""
    return float(Decimal(f"{kilometres:.15g}").quantize(Decimal("0.001"), ROUND_HALF_UP))


@dataclass
class _Airports:
    northwards: list[dict[str, Any]]
    latitudes: list[float]
    """Those of ``northwards``."""
    by_iata: dict[str, list[dict[str, Any]]]
    by_country: dict[str, list[dict[str, Any]]]


@cache
def _airports() -> _Airports:
    """Every airport as a row; the package has an empty text for an unknown value."""
    loaded = airportsdata.load("ICAO").values()
    rows: list[dict[str, Any]] = [
        {name: _or_null(dict(airport)[field]) for name, field in _NAMES.items()} for airport in loaded
    ]
    by_iata: dict[str, list[dict[str, Any]]] = defaultdict(list)
    by_country: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["icao"]):
        by_iata[row["iata"]].append(row)
    for row in sorted(rows, key=lambda row: (row["name"], row["icao"])):
        by_country[row["country"]].append(row)
    northwards = sorted(rows, key=lambda row: row["latitude"])
    return _Airports(northwards, [row["latitude"] for row in northwards], dict(by_iata), dict(by_country))


def _or_null(item: object) -> object:
    return None if item == "" else item
