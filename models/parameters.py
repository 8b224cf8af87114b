"""The check of parameters against a request type's JSON Schema (2020-12), the same on both networks."""

from typing import Any

import jsonschema_rs

from models.errors import InvalidInput
from models.schema_work import ALTERNATIVES, SchemaWork

MAX_WORK = 5_000_000
"""Steps for the parameters of one call, at 5 to 40 ns each: 0.2 s in the worst case that was found."""
MAX_PATTERN_BYTES = 256 * 1024
"""A compiled pattern. Up to this size it matches in linear time, 50 ns per byte at most; ``a{4000}`` is larger."""
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES)


class ParameterCheck:
    """A compiled schema. It is safe for hostile input: it loads no references, patterns match in linear time, and the
    work is known before it is done.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        """Raises `InvalidInput` if ``schema`` is not a valid JSON Schema, or one whose work has no bound."""
        measured = SchemaWork(schema)
        try:
            self._work = measured.measure()
            self._validator = _compiled(schema)
        except (InvalidInput, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            message = getattr(error, "message", str(error))
            if "size limit" in message:
                message = f"a pattern is larger than {MAX_PATTERN_BYTES} bytes; use maxLength for a long repetition"
            raise InvalidInput(f"params_schema is not a usable JSON Schema: {message}") from None
        self._schema = schema
        self._recursive = measured.recursive
        self._explaining: jsonschema_rs.Draft202012Validator | None = None

    def work(self, params: dict[str, Any]) -> int:
        """The most steps that checking these parameters can take; see `MAX_WORK`."""
        values, characters = _measure(params)
        return self._work.steps * values + self._work.patterns * characters

    def problem(self, params: dict[str, Any]) -> tuple[str, str] | None:
        """The first invalid field as a dotted path, with the reason.

        One error is looked for, and only if there is one: the tree of all errors grows exponentially with the depth of
        recursive alternatives.
        """
        try:
            if self.work(params) > MAX_WORK:
                return "params", "too many values for the schema of this type; send fewer at a time"
            return None if self._validator.is_valid(params) else self._explain(params)
        except (RecursionError, ValueError):
            return "params", "nested too deep"

    def _explain(self, params: dict[str, Any]) -> tuple[str, str]:
        try:
            self._explaining = self._explaining or _compiled(_explainable(self._schema, self._recursive))
            self._explaining.validate(params)
        except jsonschema_rs.ValidationError as error:
            return _described(error)
        except jsonschema_rs.ReferencingError:  # a reference leads into an alternative, which is elsewhere now
            pass
        return "params", "do not match the schema of this type"


def _compiled(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema, pattern_options=_PATTERNS, offline=True, validate_formats=True)


def _explainable(schema: Any, recursive: set[int]) -> Any:
    """The schema with alternatives and recursive references in a double ``not``, in which no errors are collected."""
    if isinstance(schema, list):
        return [_explainable(item, recursive) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {
        keyword: item if keyword in ("enum", "const", "default", "examples") else _explainable(item, recursive)
        for keyword, item in schema.items()
        if keyword not in ("unevaluatedProperties", "unevaluatedItems")  # these depend on what is in the alternatives
    }
    hidden = [keyword for keyword in ALTERNATIVES if isinstance(copy.get(keyword), list)]
    if id(schema) in recursive:
        hidden += [keyword for keyword in ("$ref", "$dynamicRef") if keyword in copy]
    if hidden:
        unexplained = [{"not": {"not": {keyword: copy.pop(keyword)}}} for keyword in hidden]
        copy["allOf"] = [*copy.get("allOf", ()), *unexplained]
    return copy


def _described(error: jsonschema_rs.ValidationError) -> tuple[str, str]:
    path = [str(part) for part in error.instance_path]
    kind, message = error.kind, error.message
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        path.append(str(kind.property))
    elif isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties) and kind.unexpected:
        path.append(str(kind.unexpected[0]))
    elif (
        isinstance(kind, jsonschema_rs.ValidationErrorKind.Not)
        and isinstance(kind.schema, dict)
        and "not" in kind.schema
    ):
        message = "does not match what the schema of this type allows here"
    return ".".join(["params", *path]), message


def _measure(params: dict[str, Any]) -> tuple[int, int]:
    """The number of values, names included, and of characters."""
    values, characters = 1, 0
    inside: list[Any] = [params]
    while inside:
        container = inside.pop()
        if isinstance(container, dict):
            values += len(container)
            characters += sum(map(len, container))
            container = container.values()
        values += len(container)
        for item in container:
            kind = type(item)
            if kind is str:
                characters += len(item)
            elif kind is dict or kind is list:
                inside.append(item)
    return values, characters
