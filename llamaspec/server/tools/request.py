"""What a chat request says of tools: the fields of its body, checked."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, ValidationError, field_validator, model_validator

from llamaspec.errors import UsageError
from llamaspec.server.fields import Body

MAX_TOOLS = 128
MAX_LENGTH = 1 << 18  # of all tools together, in characters of JSON
MAX_DEPTH = 64

_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Function(Body):
    """A function that the model may call. Without `parameters` it takes none.

    `strict`: arguments always follow the schema, or the request is refused.
    """

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: StrictBool | None = None

    @field_validator("parameters")
    @classmethod
    def _describe_an_object(cls, schema: dict[str, Any]) -> dict[str, Any]:
        if (deepest := _depth(schema)) > MAX_DEPTH:
            raise ValueError(f"it is nested {deepest} deep, and at most {MAX_DEPTH} is taken")
        if schema.get("type", "object") != "object":
            raise ValueError("it must describe an object: arguments have names")
        properties = schema.get("properties", {})
        if not isinstance(properties, dict) or not all(
            isinstance(value, dict) for value in properties.values()
        ):
            raise ValueError("its properties must be an object of JSON schemas")
        required = schema.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise ValueError("its required must be a list of names")
        return schema

    @property
    def schema_of_arguments(self) -> dict[str, Any]:
        """A JSON schema of an object."""
        return _NO_PARAMETERS if self.parameters is None else {"type": "object", **self.parameters}


class Tool(Body):
    type: Literal["function"]
    function: Function


class ChosenFunction(Body):
    name: FunctionName


class Choice(Body):
    """The one function that must be called."""

    type: Literal["function"]
    function: ChosenFunction


class ToolFields(Body):
    """The fields of a chat request that are about tools: a base of its body."""

    tools: tuple[Tool, ...] = Field((), max_length=MAX_TOOLS, fail_fast=True)
    tool_choice: Literal["none", "auto", "required"] | Choice = "auto"
    parallel_tool_calls: StrictBool = True

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _known_kind(cls, choice: Any) -> Any:
        if isinstance(choice, str) and choice not in ("none", "auto", "required"):
            raise ValueError(
                f"{choice!r} is none of 'none', 'auto', 'required' and an object that names a function"
            )
        if isinstance(choice, Mapping) and choice.get("type") != "function":
            raise ValueError("of the objects only {'type': 'function', 'function': {'name': …}} is supported")
        return choice

    @model_validator(mode="after")
    def _tools_agree(self) -> Self:
        names = [tool.function.name for tool in self.tools]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"tools: there are two functions named {twice[0]!r}")
        size = len(json.dumps([tool.model_dump(exclude_unset=True) for tool in self.tools]))
        if size > MAX_LENGTH:
            raise ValueError(
                f"tools: they take {size} characters of JSON, and at most {MAX_LENGTH} are taken"
            )
        if isinstance(self.tool_choice, Choice) and self.tool_choice.function.name not in names:
            raise ValueError(f"tool_choice: there is no function {self.tool_choice.function.name!r} in tools")
        if self.tool_choice == "required" and not self.tools:
            raise ValueError("tool_choice: a call is required, and there are no tools")
        return self

    @property
    def as_given(self) -> list[dict[str, Any]]:
        """The tools as they are told to the model; none of them where it may not call any."""
        if self.tool_choice == "none":
            return []
        return [tool.model_dump(exclude_unset=True) for tool in self.tools]

    @property
    def functions(self) -> tuple[Function, ...]:
        """What the model may call under `tool_choice`."""
        if self.tool_choice == "none":
            return ()
        functions = (tool.function for tool in self.tools)
        if isinstance(self.tool_choice, Choice):
            return tuple(f for f in functions if f.name == self.tool_choice.function.name)
        return tuple(functions)

    @property
    def forced(self) -> bool:
        """Whether the answer must be a call."""
        return self.tool_choice not in ("none", "auto")

    @property
    def constrained(self) -> bool:
        """Whether calls are written under a grammar."""
        return self.forced or any(function.strict for function in self.functions)


def read_tools(fields: Mapping[str, Any]) -> ToolFields:
    """The fields `tools`, `tool_choice` and `parallel_tool_calls`, checked. Raises UsageError."""
    try:
        return ToolFields.model_validate(fields)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        first = max(
            errors, key=lambda told: len(told["loc"])
        )  # of a union's members the one that came nearest
        # The names of the union's members are ours, not the request's.
        path = [part for part in first["loc"] if part != "Choice" and not str(part).startswith("literal[")]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        told = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: {told}." if where else f"{told}.") from error


def _depth(value: Any) -> int:
    """Levels of objects and lists. Without recursion: it is what bounds that of others."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            break
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth
