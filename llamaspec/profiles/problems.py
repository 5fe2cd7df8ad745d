"""What pydantic finds wrong, in words for the person who wrote the file."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llamaspec.profiles.document import Key, shown

_FORMS = {
    "name": "lower-case letters and digits, joined by '.', '-' or '_'",
    "repo": "owner/name",
    "revision": "a branch, a tag or a commit",
    "sha256": "64 lower-case hexadecimal digits",
    "package": "the name of a package",
    "version": "one exact version",
}
_BOUNDS = {
    "less_than_equal": ("le", "is above"),
    "greater_than_equal": ("ge", "is below"),
    "greater_than": ("gt", "is not above"),
}
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping of keys",
}


def find_problems(
    error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], sources: Mapping[Key, str]
) -> list[tuple[Key, str]]:
    """(key, sentence) for each thing wrong with `data`, which `model` refused with `error`.

    `sources` holds scalars as they were written, where `data` comes from a file.
    """
    found: dict[Key, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        if not (_in_other_branch(details["loc"], data) or _is_consequence(details)):
            found.setdefault(_key(details, data), []).append(details)
    return [(key, _sentence(key, several, model, sources.get(key))) for key, several in found.items()]


def dotted(key: Key) -> str:
    """A key as it is said: `main.mirrors[0].wheels[2].member`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{shown(part)}" for part in key).removeprefix(
        "."
    )


def _steps(loc: Key, data: Any) -> Iterator[tuple[str | int, Any, bool]]:
    """(part, what it is looked up in, whether it is there) for each part of `loc`.

    pydantic puts the names of union branches between the keys of the data: those are not there.
    """
    for part in loc:
        if isinstance(part, int):
            there = isinstance(data, list | tuple) and part < len(data)
        else:
            there = isinstance(data, Mapping) and part in data
        yield part, data, there
        if there:
            data = data[part]


def _key(details: ErrorDetails, data: Any) -> Key:
    loc = details["loc"]
    key = tuple(part for part, _, there in _steps(loc, data) if there)
    return (*key, loc[-1]) if details["type"] == "missing" else key


def _in_other_branch(loc: Key, data: Any) -> bool:
    """A mirror is refused once as each kind of mirror: only the kind that was meant is worth telling."""
    for part, mirror, there in _steps(loc, data):
        if not there and part in ("WheelMirror", "HubMirror"):
            meant = "WheelMirror" if isinstance(mirror, Mapping) and "wheels" in mirror else "HubMirror"
            return part != meant
    return False


def _is_consequence(details: ErrorDetails) -> bool:
    """A list that is called too short because its items are wrong, which is told already."""
    return details["type"] == "too_short" and bool(details["input"])


def _sentence(key: Key, several: list[ErrorDetails], model: type[BaseModel], source: str | None) -> str:
    details = next((one for one in several if one["type"] in _BOUNDS), several[0])
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    name = key[-1] if key else ""
    if kind == "extra_forbidden":
        known = _keys_at(model, key[:-1])
        if name in known:
            return "does not go with the other keys here"
        near = difflib.get_close_matches(str(name), known, n=1)
        return "unknown key" + (f": did you mean {near[0]}?" if near else "")
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context["error"])
    if value is None:
        return "has no value"
    given = _given(value, source)
    if kind in _BOUNDS:
        bound, relation = _BOUNDS[kind]
        return f"{given} {relation} {_number(context[bound])}"
    if choices := [
        one["ctx"]["expected"].replace("'", "") for one in several if one["type"] == "literal_error"
    ]:
        number = "a whole number, " if len(several) > 1 else ""
        return f"must be {number}{choices[0]}; it is {given}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'must be text; it is {given}: quote it, "{given}"'
    if kind == "string_pattern_mismatch":
        return f"{given} is not {_FORMS.get(str(name), 'well formed')}"
    if kind in ("string_too_long", "too_long"):
        return f"longer than {context['max_length']}"
    if kind in ("string_too_short", "too_short"):
        return "is empty"
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}; it is {given}"
    return details["msg"]


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _given(value: Any, source: str | None) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f"'{shown(value)}'"
    return shown(str(value) if source is None else source)


def _keys_at(model: type[BaseModel], key: Key) -> list[str]:
    """The keys that a mapping at `key` may hold; for a mirror those of every kind of mirror."""
    models = [model]
    for part in key:
        if isinstance(part, str):
            fields = [one.model_fields[part] for one in models if part in one.model_fields]
            models = [inner for field in fields for inner in _models_in(field.annotation)]
    return [field.alias or name for one in models for name, field in one.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
