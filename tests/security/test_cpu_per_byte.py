"""No input costs more than a budget of CPU per byte. The reference is an ordinary body of 1 MB, checked in the same
run: processor time is compared, never the clock, and the budget is generous.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import orjson
import pytest

from api.pagination import decode_cursor
from api.request.reading import check_media_type, read_submissions
from cache.redis_cache import Cache
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.sql import SqlSources
from fulfilment.catalog import Catalog, CheckedType
from models.errors import InvalidInput
from models.parameters import MAX_WORK, ParameterCheck
from models.requests import PublicRequestType
from tests.execution.asking import failure, kind, python

MEGABYTE = 1_000_000
TIMES_AN_ORDINARY_BODY = 40
Json = dict[str, Any]


def catalog(schema: Json) -> Catalog:
    public = PublicRequestType(name="asked", version=1, params_schema=schema)
    return Catalog(1, 1, {}, {"asked": CheckedType(public, ParameterCheck(schema))})


ANY = catalog({"type": "object"})
CODES = {
    "type": "object",
    "properties": {"codes": {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]+$"}}},
}


def body(params: Any, **more: Any) -> bytes:
    return orjson.dumps({"type": "asked", "params": params, **more})


def cpu(work: Callable[[], object]) -> float:
    begun = time.process_time()
    try:
        work()
    except InvalidInput:
        pass
    return time.process_time() - begun


@pytest.fixture(scope="module")
def budget() -> float:
    """Seconds of CPU for one call."""
    ordinary, codes = catalog(CODES), body({"codes": ["IST"] * (MEGABYTE // 6)})
    assert read_submissions(codes, ordinary, 1)
    return TIMES_AN_ORDINARY_BODY * min(cpu(lambda: read_submissions(codes, ordinary, 1)) for _ in range(3))


def filters(kinds: tuple[str, ...], word: str = "anyOf", reference: str = "#/$defs/filter") -> Json:
    """The ordinary filter of and, or and not, whose operands are filters again."""
    operands = {"type": "array", "items": {"$ref": reference}}
    branches: list[Json] = [
        {"type": "object", "properties": {"op": {"enum": [name]}, "args": operands}, "required": ["op", "args"]}
        for name in kinds
    ]
    leaf = {"type": "object", "properties": {"field": {"type": "string"}}, "required": ["field"]}
    return {
        "type": "object",
        "properties": {"filter": {"$ref": "#/$defs/filter"}},
        "$defs": {"filter": {"$dynamicAnchor": "filter", word: [*branches, leaf]}},
    }


def nested(depth: int, leaf: Any = 1, name: str = "a") -> Any:
    for _ in range(depth):
        leaf = {name: leaf}
    return leaf


def wrong_filter(depth: int) -> Json:
    found: Json = {"field": 1}
    for _ in range(depth):
        found = {"op": "and", "args": [found]}
    return {"filter": found}


SELF = {"properties": {"a": {"$ref": "#"}}}
RECURSIVE: dict[str, Json] = {
    "anyOf": filters(("and", "or", "not")),
    "oneOf": filters(("and", "or", "not"), "oneOf"),
    "dynamic": filters(("and", "or", "not"), reference="#filter").copy(),
    "many alternatives": filters(tuple(f"op{number}" for number in range(40))),
    "allOf": {"type": "object", "allOf": [SELF, SELF | {"minProperties": 1}, SELF | {"maxProperties": 5}]},
    "anyOf of itself": {"type": "object", "anyOf": [SELF | {"required": ["x"]}, SELF | {"minProperties": 1}]},
    "if": {"type": "object", "if": SELF | {"minProperties": 1}, "then": SELF, "else": {"not": SELF}},
    "not": {"type": "object", "not": {"properties": {"a": {"not": {"$ref": "#"}}}, "required": ["a"]}, "allOf": [SELF]},
    "dependent": {"type": "object", "dependentSchemas": {"a": SELF}, "allOf": [SELF]},
    "unevaluated": {"type": "object", "anyOf": [SELF | {"required": ["x"]}], "unevaluatedProperties": {"$ref": "#"}},
}


@pytest.mark.parametrize("name", RECURSIVE)
@pytest.mark.parametrize("depth", [5, 9, 11, 30, 90])
def test_recursive_alternatives_cost_no_more_with_each_level(budget: float, name: str, depth: int) -> None:
    known = catalog(RECURSIVE[name])
    for params in (wrong_filter(depth), nested(depth), nested(depth, {"b": [1]})):
        assert cpu(partial(read_submissions, body(params), known, 1)) < budget


def test_a_wrong_leaf_of_a_filter_is_refused_and_a_right_one_is_not() -> None:
    check = ParameterCheck(RECURSIVE["anyOf"])
    problem = check.problem(wrong_filter(10))
    assert problem is not None
    assert problem[0].startswith("params.filter")
    assert len(problem[1]) < 200
    right = orjson.loads(orjson.dumps(wrong_filter(10)).replace(b'"field":1', b'"field":"a"'))
    assert check.problem(right) is None


async def test_the_worker_bounds_the_same_work(budget: float, cache: Cache) -> None:
    executors = Executors(SqlSources({}, 1), HttpCalls([]), PythonFunctions([]), cache)
    asked = kind(python("numbers"), schema=RECURSIVE["anyOf"])
    begun = time.process_time()
    reason, _ = await failure(executors, asked, wrong_filter(11))
    assert reason == "invalid-params"
    assert time.process_time() - begun < budget
    await executors.aclose()


HEAVY: dict[str, tuple[Json, Any]] = {
    "wrong items": ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": [1] * 340_000}),
    "wrong properties": ({"additionalProperties": {"type": "string"}}, {f"k{n}": 1 for n in range(80_000)}),
    "unknown properties": ({"additionalProperties": False}, {f"k{n}": 1 for n in range(80_000)}),
    "unique numbers": ({"properties": {"a": {"uniqueItems": True}}}, {"a": list(range(130_000))}),
    "unique objects": ({"properties": {"a": {"uniqueItems": True}}}, {"a": [{"n": n} for n in range(60_000)]}),
    "unique lists": ({"properties": {"a": {"uniqueItems": True}}}, {"a": [[n, [n]] for n in range(50_000)]}),
    "few unique": (
        {"properties": {"a": {"items": {"uniqueItems": True}}}}, {"a": [list(range(15)) for _ in range(20_000)]},
    ),
    "multipleOf": ({"properties": {"a": {"items": {"multipleOf": 1e-300}}}}, {"a": [1e300] * 140_000}),
    "maxLength": ({"properties": {"a": {"maxLength": 5}}}, {"a": "ü" * 480_000}),
    "pattern": ({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 900_000 + "!"}),
    "pattern of alternatives": ({"properties": {"a": {"pattern": "^(a|a|ab)*c$"}}}, {"a": "ab" * 450_000}),
    "pattern of repetitions": (
        {"properties": {"a": {"pattern": "[ab]*a[ab]{900}[cd]|[ab]*b[ab]{899}e"}}}, {"a": "abbabaabba" * 90_000},
    ),
    "many patterns": (
        {"patternProperties": {f"^{n}[a-z]*x": True for n in range(3000)}}, {f"k{n}": 1 for n in range(60_000)},
    ),
    "names": ({"propertyNames": {"pattern": "^(a|b)*$"}}, {f"ab{n}": 1 for n in range(60_000)}),
    "alternatives": (
        {"properties": {"a": {"items": {"oneOf": [{"const": n} for n in range(3000)]}}}}, {"a": [2999] * 160_000},
    ),
    "options": (
        {"properties": {"a": {"items": {"enum": [{"n": n} for n in range(3000)]}}}}, {"a": [{"n": 2999}] * 90_000},
    ),
    "mixed options": (
        {"properties": {"a": {"items": {"enum": [None, *(f"c{n}" for n in range(30_000))]}}}},
        {"a": ["c29999"] * 90_000},
    ),
    "dependencies": (
        {"properties": {"a": {"items": {"dependentRequired": {f"r{n}": ["a"] for n in range(9000)}}}}},
        {"a": [{"b": 1}] * 100_000},
    ),
    "contains": (
        {"properties": {"a": {"contains": {"type": "string"}, "unevaluatedItems": {"type": "integer"}}}},
        {"a": [1] * 400_000},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEAVY)
def test_a_schema_of_an_operator_and_a_large_body_stay_within_the_budget(budget: float, name: str) -> None:
    schema, params = HEAVY[name]
    known = catalog({"type": "object", **schema})
    sent = body(params)
    assert len(sent) < 1.3 * MEGABYTE
    assert cpu(lambda: read_submissions(sent, known, 1)) < budget


@pytest.mark.parametrize("name", ["alternatives", "options", "many patterns"])
def test_a_list_of_requests_has_the_bound_of_one(budget: float, name: str) -> None:
    schema, params = HEAVY[name]
    [(key, many)] = params.items() if "a" in params else [("k", None)]
    one = {key: many[:90]} if many else {f"k{n}": 1 for n in range(60)}
    sent = orjson.dumps([{"type": "asked", "params": one}] * 1000)
    assert cpu(lambda: read_submissions(sent, catalog({"type": "object", **schema}), 1000)) < budget


@pytest.mark.parametrize(
    "sent",
    [
        b"[" + b"1," * 490_000 + b"1]",
        b"[" + b"{}," * 330_000 + b"{}]",
        b"[" + b'{"a":{}},' * 110_000 + b"{}]",
        b'{"type":"asked",' + b",".join(b'"%d":1' % n for n in range(90_000)) + b"}",
        b'{"type":"asked","params":{"n":' + b"9" * 990_000 + b"}}",
        b'{"type":"asked","params":{"n":0.' + b"9" * 990_000 + b"}}",
        b'{"type":"asked","params":{"n":' + b"[" * 990_000,
        b'{"type":"' + b"a-" * 490_000 + b'"}',
        b'{"type":"asked","callback_url":"http://' + b"a." * 490_000 + b'"}',
        b'{"type":"asked","callback_url":"http://a/' + b"../" * 330_000 + b'"}',
        b'{"type":"asked","name":"' + b"\\u0000" * 160_000 + b'"}',
        b'{"type":"asked","params":{"a":[' + b"NaN," * 240_000 + b"1]}}",
        b" " * 990_000,
    ],
    ids=range(13),
)
def test_a_body_that_is_no_request_costs_no_more_than_one_that_is(budget: float, sent: bytes) -> None:
    assert cpu(lambda: read_submissions(sent, ANY, 1000)) < budget


@pytest.mark.parametrize("given", ["A" * MEGABYTE, "=" * MEGABYTE, "ü" * MEGABYTE, "\x00" * MEGABYTE])
def test_headers_and_cursors_stay_within_the_budget(budget: float, given: str) -> None:
    assert cpu(lambda: decode_cursor(given)) < budget
    assert cpu(lambda: check_media_type(given)) < budget
    with pytest.raises(ValueError, match="badly formed"):
        UUID(given)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}, {}]}}},
        {
            "$ref": "#/$defs/a0",
            "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)} | {"a40": {}},
        },
        {"properties": {"a": {"pattern": "a{1000}{1000}"}}},
        {"properties": {"a": {"pattern": "(?:[ab]*a[ab]{4000}[cd]|[ab]*b[ab]{3999}e)"}}},
        nested(500, {}, "not"),
        {"items": {"anyOf": [{"const": n} for n in range(60_000)]}},
        {"properties": {"a": {"$id": "https://example.com/b", "$ref": "#"}}},
    ],
    ids=["itself", "in circles", "doubling", "million", "long pattern", "deep", "alternatives", "ids"],
)
def test_a_schema_whose_work_has_no_bound_is_refused_when_it_is_created(budget: float, schema: Json) -> None:
    assert cpu(lambda: ParameterCheck(schema)) < budget
    with pytest.raises(InvalidInput, match="params_schema is not a usable JSON Schema: "):
        ParameterCheck(schema)


def test_nested_unevaluated_properties_are_refused() -> None:
    schema: Json = {"patternProperties": {"^z": True}}
    for _ in range(14):
        schema = {"allOf": [{"anyOf": [schema, {"required": ["q"]}]}], "unevaluatedProperties": {"type": "integer"}}
    with pytest.raises(InvalidInput, match="unevaluatedProperties"):
        ParameterCheck(schema)


def test_the_bound_leaves_room_for_large_ordinary_parameters() -> None:
    check = ParameterCheck(CODES)
    assert check.work({"codes": ["IST"] * (MEGABYTE // 6)}) < MAX_WORK / 2
    assert check.problem({"codes": ["IST"] * (MEGABYTE // 6)}) is None


MEMORY = """
import resource, sys
from tests.security import test_cpu_per_byte as this
from models.errors import InvalidInput
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bodies = [this.body(this.HEAVY["wrong items"][1]), b"[" + b"1," * 490_000 + b"1]", this.body(this.wrong_filter(11))]
schemas = [this.HEAVY["wrong items"][0], {}, this.RECURSIVE["anyOf"]]
known = [this.catalog({"type": "object", **schema}) for schema in schemas]
for sent, types in zip(bodies, known):
    try:
        this.read_submissions(sent, types, 1000)
    except InvalidInput:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_refused_bodies_take_no_more_memory_than_their_parsed_values() -> None:
    ran = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) < 200_000, "KiB"
