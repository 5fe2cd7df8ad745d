"""Readers of a call's arguments while they are written: JSON comes out, whatever the model's format is."""

import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from llamaspec.server.tools.formats import literal
from llamaspec.server.tools.schemas import TEXT_ONLY, types_of

PARAMETER_NAME = r"[^<>\r\n]{1,200}"

_VALUE_END = "</parameter>"
_PARAMETER = re.compile(rf"<parameter=({PARAMETER_NAME})>\n?")
_MAYBE_PARAMETER = re.compile(rf"<parameter=(?:{PARAMETER_NAME})?>?\Z")
_STARTS = (literal("<parameter="), literal("</function>"))
_VALUE_ENDS = (literal(_VALUE_END), literal("\n" + _VALUE_END))


class ArgumentsReader(Protocol):
    """Reads until the arguments end or break off. `json` is what came out: valid where `complete` is true."""

    json: str
    complete: bool

    def feed(self, text: str) -> tuple[str, str | None]:
        """JSON text that is new, and the text that is left behind the end: None before it."""
        ...


class JsonArguments:
    """Arguments that are JSON already, from the opening brace on.

    Line breaks and other control characters inside strings, which JSON does not allow, are escaped.
    """

    def __init__(self) -> None:
        self.json = ""
        self.complete = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> tuple[str, str | None]:
        new: list[str] = []
        rest = None
        for at, character in enumerate(text):
            new.append(self._read(character))
            if self._depth == 0:
                rest = text[at + 1 :]
                break
        delta = "".join(new)
        self.json += delta
        if rest is not None:
            self.complete = isinstance(parse_json(self.json), dict)
        return delta, rest

    def _read(self, character: str) -> str:
        if self._in_string:
            if character < " ":
                character = json.dumps(character)[1:-1]
                if self._escaped:  # the backslash before it is out already: it becomes one that is meant
                    character = "\\" + character
            if self._escaped or character == "\\":
                self._escaped = not self._escaped
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
        return character


class TaggedArguments:
    """Arguments as `<parameter=name>` tags, up to `</function>`; their types are those of the schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.json = ""
        self.complete = False
        self._schema = schema
        self._held = ""
        self._name: str | None = None  # of the parameter whose value is being read
        self._types: frozenset[str] = frozenset()

    def feed(self, text: str) -> tuple[str, str | None]:
        self._held += text
        before = len(self.json)
        rest = None
        while rest is None:
            held = len(self._held)
            rest = self._read_tag() if self._name is None else self._read_value()
            if len(self._held) == held:
                break
        return self.json[before:], rest

    def _read_tag(self) -> str | None:
        self._held = self._held.lstrip()
        if self._held.startswith("</function>"):
            self.json += "}" if self.json else "{}"
            self.complete = True
            return self._held.removeprefix("</function>")
        if found := _PARAMETER.match(self._held):
            if found.end() == len(self._held) and not found[0].endswith("\n"):
                return None  # a line break that belongs to the tag may follow
            self._name = found[1]
            self._types = types_of(self._schema.get("properties", {}).get(self._name, {}), self._schema)
            self.json += (", " if self.json else "{") + json.dumps(self._name, ensure_ascii=False) + ": "
            if self._types == TEXT_ONLY:
                self.json += '"'
            self._held = self._held[found.end() :]
            return None
        if _MAYBE_PARAMETER.match(self._held) or any(start.partial.match(self._held) for start in _STARTS):
            return None
        return self._held

    def _read_value(self) -> str | None:
        end = self._held.find(_VALUE_END)
        if self._types == TEXT_ONLY:
            self._read_text(end)
        if end >= 0:
            value, _, self._held = self._held.partition(_VALUE_END)
            self.json += '"' if self._types == TEXT_ONLY else _as_json(value.removesuffix("\n"), self._types)
            self._name = None
        return None

    def _read_text(self, end: int) -> None:
        """Pass on what is text for sure: not what may be the end."""
        if end >= 0:
            safe = len(self._held[:end].removesuffix("\n"))
        else:
            start = max(0, len(self._held) - len(_VALUE_END))
            ends = (
                at
                for at in range(start, len(self._held))
                if any(e.partial.match(self._held, at) for e in _VALUE_ENDS)
            )
            safe = next(ends, len(self._held))
        self.json += json.dumps(self._held[:safe], ensure_ascii=False)[1:-1]
        self._held = self._held[safe:]


def parse_json(text: str) -> Any:
    """The value of strict JSON; None where it is not."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _as_json(value: str, types: frozenset[str]) -> str:
    """A value as the schema's types have it: text only where nothing else fits."""
    text = _PYTHON.get(value.strip(), value)
    parsed = parse_json(text)
    fits = parsed is not None or text.strip() == "null"
    if fits and "string" in types:
        kind = _KINDS[type(parsed)]
        fits = kind in types or (kind == "integer" and "number" in types)
    return text.strip() if fits else json.dumps(value, ensure_ascii=False)


_PYTHON = {"True": "true", "False": "false", "None": "null"}  # templates write them so in older calls
_KINDS = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}
