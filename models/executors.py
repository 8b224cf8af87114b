"""What a request type's executor is told. Never crosses the link."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

JsonPointer = Annotated[str, Field(pattern=r"^(/[^/]*)*$", description="JSON Pointer (RFC 6901)")]


def _says_its_kind(schema: dict[str, Any]) -> None:
    """Only by its kind is one executor told from another: the document must not call it optional."""
    schema["required"] = ["kind", *schema.get("required", [])]


class SqlExecutor(BaseModel):
    """A read-only query on a named source; ``:name`` takes the parameter of that name."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_says_its_kind)

    kind: Literal["sql"] = "sql"
    source: str = Field(description="A name in AIRLOCK_RESPONSE_SOURCES")
    query: str = Field(
        min_length=1, max_length=20_000, description="One SELECT, without LIMIT: the limits say how much"
    )


class HttpExecutor(BaseModel):
    """A call with a JSON body; ``"{{ name }}"`` in it becomes the parameter of that name with its type kept."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_says_its_kind)

    kind: Literal["http"] = "http"
    url: str = Field(pattern=r"^https?://", description="Its host must be in AIRLOCK_RESPONSE_HTTP_HOSTS")
    method: Literal["GET", "POST"] = "POST"
    body: JsonValue = None
    secret_headers: dict[str, str] = Field(
        default_factory=dict, description="Header name → name of a secret setting that holds its value"
    )
    rows: JsonPointer = Field("", description="Where the answer's rows are, e.g. /hits/hits")
    total: JsonPointer | None = Field(None, description="Where the answer's total is, e.g. /hits/total/value")


class PythonExecutor(BaseModel):
    """A function of the operator's own, called with the parameters as keyword arguments."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_says_its_kind)

    kind: Literal["python"] = "python"
    function: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function, the module being in AIRLOCK_RESPONSE_PYTHON_EXECUTORS",
    )


ExecutorSpec = Annotated[SqlExecutor | HttpExecutor | PythonExecutor, Field(discriminator="kind")]
executor_spec: TypeAdapter[SqlExecutor | HttpExecutor | PythonExecutor] = TypeAdapter(ExecutorSpec)
