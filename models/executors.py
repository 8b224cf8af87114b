"""The definition of a request type's executor. It never crosses the link."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

JsonPointer = Annotated[str, Field(pattern=r"^(/[^/]*)*$", description="JSON Pointer (RFC 6901)")]


def _require_kind(schema: dict[str, Any]) -> None:
    """Make ``kind`` required in the JSON Schema: only it distinguishes the executors."""
    schema["required"] = ["kind", *schema.get("required", [])]


class _Executor(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra=_require_kind)


class SqlExecutor(_Executor):
    """A read-only query on a named source. ``:name`` stands for the parameter of that name."""

    kind: Literal["sql"] = "sql"
    source: str = Field(description="A name in AIRLOCK_RESPONSE_SOURCES")
    query: str = Field(
        min_length=1, max_length=20_000, description="One SELECT without LIMIT; the type's limits bound the rows"
    )


class HttpExecutor(_Executor):
    """An HTTP call with a JSON body. ``"{{ name }}"`` in it becomes the parameter of that name and keeps its type."""

    kind: Literal["http"] = "http"
    url: str = Field(pattern=r"^https?://", description="Its host must be in AIRLOCK_RESPONSE_HTTP_HOSTS")
    method: Literal["GET", "POST"] = "POST"
    body: JsonValue = None
    secret_headers: dict[str, str] = Field(
        default_factory=dict, description="Header name → name of the secret setting with its value"
    )
    rows: JsonPointer = Field("", description="Place of the rows in the answer, e.g. /hits/hits")
    total: JsonPointer | None = Field(None, description="Place of the total in the answer, e.g. /hits/total/value")


class PythonExecutor(_Executor):
    """A Python function of the operator. The parameters are its keyword arguments."""

    kind: Literal["python"] = "python"
    function: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function; the module must be in AIRLOCK_RESPONSE_PYTHON_EXECUTORS",
    )


ExecutorSpec = Annotated[SqlExecutor | HttpExecutor | PythonExecutor, Field(discriminator="kind")]
executor_spec: TypeAdapter[SqlExecutor | HttpExecutor | PythonExecutor] = TypeAdapter(ExecutorSpec)
