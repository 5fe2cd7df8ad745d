"""What a node of a JSON schema may say, and what two of them say together."""

from collections.abc import Callable, Iterable
from typing import Any

from llamaspec.errors import GrammarError
from llamaspec.native.json_text import quoted

Node = dict[str, Any]

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

ANNOTATIONS = frozenset(
    [
        *("title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "$defs", "definitions", "discriminator"),
    ]
)
"""They ask for nothing, or nothing of their own; so do names that begin with `x-`."""

BY_TYPE = {
    "object": (
        "properties",
        "required",
        "additionalProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
    ),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
"""What is said of values of one type, and nothing of others."""


def _is_schema(value: object) -> bool:
    return isinstance(value, dict | bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _some(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(check, value))


def _named_schemas(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_schema, value.values()))


_CHECKS: dict[str, Callable[[object], bool]] = {
    "type": lambda value: (
        value in TYPES if isinstance(value, str) else _some(lambda one: one in TYPES)(value)
    ),
    "enum": _some(lambda _: True),
    "const": lambda _: True,
    "$ref": _is_text,
    "nullable": _is_flag,
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), _some(_is_schema)),
    "properties": _named_schemas,
    "required": lambda value: value == [] or _some(_is_text)(value),
    **dict.fromkeys(("additionalProperties", "propertyNames"), _is_schema),
    "items": lambda value: _is_schema(value) or _some(_is_schema)(value),
    "uniqueItems": _is_flag,
    **dict.fromkeys(("pattern", "format"), _is_text),
    **dict.fromkeys(
        ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"), _is_count
    ),
    **dict.fromkeys(BY_TYPE["number"], _is_number),
}


def refusal(what: str) -> GrammarError:
    return GrammarError(f"The JSON schema {what}.")


def checked(node: Node) -> Node:
    """The node without annotations. Raises GrammarError for what is malformed or not known."""
    said = {key: value for key, value in node.items() if key not in ANNOTATIONS and not key.startswith("x-")}
    for key, value in said.items():
        check = _CHECKS.get(key)
        if check is None:
            raise GrammarError(
                f"The JSON schema's {key!r} can't be kept: llamaspec would ignore it.",
                f"Supported: {', '.join(sorted(_CHECKS))}.",
            )
        if not check(value):
            raise GrammarError(
                f"The JSON schema's {key!r} is malformed, or can't be met: {quoted(value)[:80]}."
            )
    if isinstance(said.get("items"), list):
        if "prefixItems" in said:
            raise refusal("lists its items twice")
        said["prefixItems"], said["items"] = said["items"], False
    return said


def merged(one: Node, other: Node) -> Node:
    """What both of two checked nodes ask for. Raises GrammarError where that can't be said in one node."""
    first, second = _closed(one, other), _closed(other, one)
    together = dict(first)
    for key, value in second.items():
        if key not in together or quoted(together[key]) == quoted(value):
            together[key] = value
        else:
            _combine(together, key, value)
    return together


def _combine(node: Node, key: str, value: Any) -> None:
    """Add to a node what it already has something else for."""
    there = node[key]
    if key == "type":
        node[key] = [kind for kind in TYPES if _admits(there, kind) and _admits(value, kind)]
        if not node[key]:
            raise refusal(f"asks for two types at once: {quoted(there)} and {quoted(value)}")
    elif key == "enum":
        node[key] = [kept for kept in there if quoted(kept) in set(map(quoted, value))]
        if not node[key]:
            raise refusal("asks for two values at once")
    elif key == "properties":
        both = {
            name: False if False in (there[name], value[name]) else {"allOf": [there[name], value[name]]}
            for name in there
            if name in value
        }
        node[key] = {**there, **value, **both}
    elif key == "required":
        node[key] = list(dict.fromkeys([*there, *value]))
    elif key == "allOf":
        node[key] = [*there, *value]
    elif key in ("anyOf", "oneOf", "$ref"):
        node["allOf"] = [*node.get("allOf", []), {key: value}]
    elif key in ("additionalProperties", "items", "propertyNames"):
        node[key] = False if there is False or value is False else {"allOf": [there, value]}
    elif key in ("uniqueItems", "nullable"):
        node[key] = (there or value) if key == "uniqueItems" else (there and value)
    elif key.startswith("min") or key == "exclusiveMinimum":
        node[key] = max(there, value)
    elif key.startswith("max") or key == "exclusiveMaximum":
        node[key] = min(there, value)
    else:
        raise refusal(f"asks for two things at once with {key!r}")


def _closed(node: Node, other: Node) -> Node:
    """The node with what its `additionalProperties` say of the properties that only the other one has."""
    more = node.get("additionalProperties", True)
    if more is True:
        return node
    own = node.get("properties", {})
    return {
        **node,
        "properties": {**own, **{name: more for name in other.get("properties", {}) if name not in own}},
    }


def _admits(types: str | Iterable[str], kind: str) -> bool:
    listed = {types} if isinstance(types, str) else set(types)
    return kind in listed or (kind == "integer" and "number" in listed)
