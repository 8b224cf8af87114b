"""The sample's request types.

Distances are great-circle distances by the haversine formula (R. W. Sinnott, "Virtues of the Haversine", Sky and
Telescope 68, 1984) on a sphere with the Earth's mean radius, 6371.0088 km (IUGG). The query first selects a band of
latitudes.
"""

from typing import Any

COLUMNS = "iata, icao, name, city, subdivision, country, elevation_ft, latitude, longitude, time_zone"

_AIRPORTS_NEAR = f"""
SELECT {COLUMNS}, round(distance_km::numeric, 3)::double precision AS distance_km
FROM (
    SELECT *, 2 * 6371.0088 * asin(least(1, sqrt(
        sin(radians(latitude - CAST(:latitude AS double precision)) / 2) ^ 2
        + cos(radians(CAST(:latitude AS double precision))) * cos(radians(latitude))
          * sin(radians(longitude - CAST(:longitude AS double precision)) / 2) ^ 2))) AS distance_km
    FROM sample.airports
    WHERE latitude BETWEEN CAST(:latitude AS double precision) - degrees(:radius_km / 6371.0088)
                       AND CAST(:latitude AS double precision) + degrees(:radius_km / 6371.0088)
) AS measured
WHERE distance_km <= CAST(:radius_km AS double precision)
ORDER BY distance_km, icao
"""

_LIMIT = {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Rows at most"}

REQUEST_TYPES: list[dict[str, Any]] = [
    {
        "name": "airport",
        "description": "The airport with this IATA code",
        "params_schema": {
            "type": "object",
            "properties": {"iata": {"type": "string", "pattern": "^[A-Z]{3}$", "description": "Three capital letters"}},
            "required": ["iata"],
            "additionalProperties": False,
        },
        "limits": {"rows": 10, "timeout": 5},
        "query": f"SELECT {COLUMNS} FROM sample.airports WHERE iata = :iata ORDER BY icao",
    },
    {
        "name": "airports-in-country",
        "description": "The airports of a country, by name",
        "params_schema": {
            "type": "object",
            "properties": {
                "country": {"type": "string", "pattern": "^[A-Z]{2}$", "description": "ISO 3166-1 alpha-2"},
                "limit": _LIMIT,
            },
            "required": ["country"],
            "additionalProperties": False,
        },
        "limits": {"rows": 1000, "rows_param": "limit", "timeout": 10},
        "query": f"SELECT {COLUMNS} FROM sample.airports WHERE country = :country ORDER BY name, icao",
    },
    {
        "name": "airports-near",
        "description": "The airports within a great-circle distance of a place, nearest first, with the distance",
        "params_schema": {
            "type": "object",
            "properties": {
                "latitude": {"type": "number", "minimum": -90, "maximum": 90},
                "longitude": {"type": "number", "minimum": -180, "maximum": 180},
                "radius_km": {"type": "number", "exclusiveMinimum": 0, "maximum": 20038},
                "limit": _LIMIT,
            },
            "required": ["latitude", "longitude", "radius_km"],
            "additionalProperties": False,
        },
        "limits": {"rows": 1000, "rows_param": "limit", "timeout": 10},
        "query": _AIRPORTS_NEAR,
    },
]
SOURCE = "sample"
