"""The check of parameters against a request type's JSON Schema (2020-12), the same on both networks."""

from typing import Any

import jsonschema_rs

from models.errors import InvalidInput


class ParameterCheck:
    """A compiled schema. It is safe for hostile input: it loads no references, and patterns match in linear time."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Raises `InvalidInput` if ``schema`` is not a valid JSON Schema."""
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True, validate_formats=True
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            message = getattr(error, "message", str(error))
            raise InvalidInput(f"params_schema is not a usable JSON Schema: {message}") from None

    def problems(self, params: dict[str, Any]) -> list[tuple[str, str]]:
        """The invalid fields as dotted paths, each with the reason."""
        return [_explain(error) for error in self._validator.iter_errors(params)]

    def validate(self, params: dict[str, Any]) -> None:
        """Raises ``jsonschema_rs.ValidationError`` for the first invalid field."""
        self._validator.validate(params)


def _explain(error: jsonschema_rs.ValidationError) -> tuple[str, str]:
    path = [str(part) for part in error.instance_path]
    kind = error.kind
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        path.append(str(kind.property))
    elif isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties) and kind.unexpected:
        path.append(str(kind.unexpected[0]))
    return ".".join(["params", *path]), error.message
