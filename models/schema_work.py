"""What a JSON Schema can cost: the work for one value, and the references that go round in circles."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from models.errors import InvalidInput

MAX_DEPTH = 100
"""Nesting of a schema. Deeper ones would exhaust the stack of whoever reads them."""
MAX_WORK = 100_000
"""Steps for one value. An ordinary schema takes fewer than 100."""
UNEVALUATED_FACTOR = 4
"""``unevaluated…`` checks the subschemas beside it again, up to four times as measured. It multiplies when nested."""
OPTION_STEPS = 4
"""An alternative, or a list or object among the options of an ``enum``: 140 ns, where a step takes 10 to 40."""
MULTIPLE_OF_STEPS = 400
"""``multipleOf`` computes with fractions: up to 27 µs for 1e300."""

_LISTS = ("allOf", "anyOf", "oneOf")
_IN_PLACE = ("not", "if", "then", "else")
_CHILDREN = (
    "additionalProperties",
    "propertyNames",
    "unevaluatedProperties",
    "additionalItems",
    "contains",
    "unevaluatedItems",
    "contentSchema",
)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
ALTERNATIVES = ("anyOf", "oneOf")


@dataclass(frozen=True)
class Work:
    """The most steps that one value can take, and the most patterns that one string is matched with."""

    steps: int = 0
    patterns: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.steps + other.steps, self.patterns + other.patterns)

    def times(self, factor: int) -> "Work":
        return Work(self.steps * factor, self.patterns * factor)

    def or_more(self, other: "Work") -> "Work":
        return Work(max(self.steps, other.steps), max(self.patterns, other.patterns))


@dataclass
class SchemaWork:
    """Measures a schema. Each value is checked with the subschemas of its place only, so of ``properties`` the
    costliest one counts, and of everything that applies to the same value, the sum.

    A reference to a subschema that it is part of counts once: the validator remembers what it found there for a value.
    ``recursive`` has these references, by the identity of the subschema that makes them.
    """

    schema: dict[str, Any]
    recursive: set[int] = field(default_factory=set)
    _known: dict[int, Work] = field(default_factory=dict)
    _path: dict[int, int] = field(default_factory=dict)
    """The subschemas that lead to the present one, each with the number of steps into the value until there."""
    _anchors: dict[str, list[Any]] = field(default_factory=dict)

    def measure(self) -> Work:
        """The work for one value. Raises `InvalidInput` if it has no bound, or too high a one."""
        for subschema in _objects(self.schema, 0):
            for keyword in ("$anchor", "$dynamicAnchor"):
                if isinstance(name := subschema.get(keyword), str):
                    self._anchors.setdefault(name, []).append(subschema)
        return self._of(self.schema, 0)

    def _of(self, schema: Any, into: int) -> Work:
        """``into``: how many steps into the value this subschema is away from the root."""
        if not isinstance(schema, dict):
            return Work(1)
        me = id(schema)
        if me in self._known:
            return self._known[me]
        if len(self._path) > 2 * MAX_DEPTH:
            raise InvalidInput(f"its references lead through more than {2 * MAX_DEPTH} subschemas; use fewer")
        self._path[me] = into
        work = self._own(schema)
        for beside in _beside(schema):
            work += self._of(beside, into)
        for keyword in _REFERENCES:
            if isinstance(target := schema.get(keyword), str):
                work += self._referred(schema, target, into)
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            work = work.times(UNEVALUATED_FACTOR)
        for group in _children(schema):
            most = Work()
            for child in group:
                most = most.or_more(self._of(child, into + 1))
            work += most
        del self._path[me]
        if max(work.steps, work.patterns) > MAX_WORK:
            raise InvalidInput(
                f"checking one value could take more than {MAX_WORK} steps: use fewer alternatives, fewer references "
                "to the same subschema, and no nested unevaluatedProperties or unevaluatedItems"
            )
        self._known[me] = work
        return work

    def _referred(self, schema: dict[str, Any], reference: str, into: int) -> Work:
        work = Work()
        for target in self._targets(reference):
            begun = self._path.get(id(target))
            if begun is None:
                work += self._of(target, into)
            elif begun == into:
                raise InvalidInput(f"the reference {reference!r} leads to itself without going into the value")
            else:
                self.recursive.add(id(schema))
                work += Work(1)
        return work

    def _targets(self, reference: str) -> list[Any]:
        root = self.schema.get("$id")
        fragment = reference.removeprefix(root) if isinstance(root, str) else reference
        if fragment in ("", "#"):
            return [self.schema]
        if fragment.startswith("#/"):
            return [_at(self.schema, fragment[1:], reference)]
        if fragment.startswith("#") and fragment[1:] in self._anchors:
            return self._anchors[fragment[1:]]
        raise InvalidInput(f"the reference {reference!r} leads out of the schema; put what it names into $defs")

    @staticmethod
    def _own(schema: dict[str, Any]) -> Work:
        steps = 1
        options = schema.get("enum")
        if isinstance(options, list) and not all(isinstance(option, str) for option in options):
            for option in options:
                steps += OPTION_STEPS * sum(1 for _ in _values(option)) if isinstance(option, dict | list) else 1
        for keyword in ALTERNATIVES:
            if isinstance(several := schema.get(keyword), list):
                steps += OPTION_STEPS * len(several)
        if "const" in schema:
            steps += sum(1 for _ in _values(schema["const"]))
        required = schema.get("required")
        steps += len(required) if isinstance(required, list) else 0
        for keyword in ("dependentRequired", "dependencies"):
            if isinstance(named := schema.get(keyword), dict):
                steps += sum(1 for _ in _values(named))
        if "multipleOf" in schema:
            steps += MULTIPLE_OF_STEPS
        keys = schema.get("patternProperties")
        patterns = (1 if "pattern" in schema else 0) + (len(keys) if isinstance(keys, dict) else 0)
        return Work(steps + patterns, patterns)


def _beside(schema: dict[str, Any]) -> Iterator[Any]:
    """The subschemas for the same value."""
    for keyword in _LISTS:
        if isinstance(several := schema.get(keyword), list):
            yield from several
    for keyword in _IN_PLACE:
        if keyword in schema:
            yield schema[keyword]
    for keyword in ("dependentSchemas", "dependencies"):
        if isinstance(named := schema.get(keyword), dict):
            yield from (item for item in named.values() if isinstance(item, dict))


def _children(schema: dict[str, Any]) -> Iterator[list[Any]]:
    """The subschemas for the values inside. Of each list, one applies to the same value."""
    if isinstance(named := schema.get("properties"), dict):
        yield list(named.values())
    if isinstance(named := schema.get("patternProperties"), dict):
        yield from ([item] for item in named.values())
    for keyword in ("prefixItems", "items"):
        if keyword in schema:
            yield items if isinstance(items := schema[keyword], list) else [items]
    for keyword in _CHILDREN:
        if keyword in schema:
            yield [schema[keyword]]


def _objects(item: Any, depth: int) -> Iterator[dict[str, Any]]:
    """All objects in the schema. An ``$id`` inside would move references, so it is refused."""
    if depth > MAX_DEPTH:
        raise InvalidInput(f"it is nested deeper than {MAX_DEPTH}")
    if isinstance(item, dict):
        if depth and isinstance(item.get("$id"), str):
            raise InvalidInput("only the schema itself may have an $id; refer to its parts with # and a JSON Pointer")
        yield item
    if isinstance(item, dict | list):
        for inside in item.values() if isinstance(item, dict) else item:
            yield from _objects(inside, depth + 1)


def _values(item: Any) -> Iterator[Any]:
    """The value and all that are in it."""
    yield item
    if isinstance(item, dict | list):
        for inside in item.values() if isinstance(item, dict) else item:
            yield from _values(inside)


def _at(schema: Any, pointer: str, reference: str) -> Any:
    found = schema
    for token in pointer.split("/")[1:]:
        token = unquote(token).replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(token)] if isinstance(found, list) else found[token]
        except (KeyError, IndexError, TypeError, ValueError):
            raise InvalidInput(f"the reference {reference!r} leads to nothing in the schema") from None
    return found
