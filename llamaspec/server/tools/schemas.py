"""What a JSON schema says of the types of a value."""

from collections.abc import Mapping
from typing import Any

TEXT_ONLY = frozenset({"string"})


def types_of(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int = 8) -> frozenset[str]:
    """The JSON types that a schema allows by name, its references looked up in `root`; empty: not known."""
    if depth == 0:
        return frozenset()
    if isinstance(reference := schema.get("$ref"), str):
        target = _target(reference, root)
        return types_of(target, root, depth - 1) if target is not None else frozenset()
    named = schema.get("type")
    if isinstance(named, str):
        return frozenset({named})
    if isinstance(named, list):
        return frozenset(filter(lambda name: isinstance(name, str), named))
    for several in (schema.get("anyOf"), schema.get("oneOf")):
        if isinstance(several, list):
            found = [types_of(one, root, depth - 1) for one in several if isinstance(one, dict)]
            return frozenset().union(*found) if all(found) else frozenset()
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
        return TEXT_ONLY
    return frozenset()


def _target(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    node: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else None
