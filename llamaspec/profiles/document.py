"""YAML read as plain data, with the line of every key.

Someone else may have written the file: size, depth and number of values are capped; aliases, anchors, tags
and duplicate keys are refused. Plain words are read as YAML 1.2's core schema does: `on`, `off`, `yes` and
`no` are words, and numbers are decimal. Under YAML 1.1, which PyYAML speaks, `mode: off` would be false and
`1:30` would be 90.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from llamaspec.errors import ProfileError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_NODES = 20_000
MAX_PROBLEMS_SHOWN = 100

Key = tuple[str | int, ...]

_STR, _NULL, _BOOL, _INT, _FLOAT = (
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "null", "bool", "int", "float")
)
# (tag, form, first characters). Bounded: more digits than these are no setting, and int() is slow on many.
CORE_SCALARS = (
    (_NULL, re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    (_BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    (_INT, re.compile(r"[-+]?(?:0|[1-9][0-9]{0,29})\Z"), list("-+0123456789")),
    (
        _FLOAT,
        re.compile(
            r"""(?: [-+]? (?: [0-9]{1,30} \. [0-9]{0,30} | \. [0-9]{1,30} ) (?: [eE] [-+]? [0-9]{1,5} )?
                  | [-+]? [0-9]{1,30} [eE] [-+]? [0-9]{1,5}
                  | [-+]? \. (?: inf | Inf | INF )
                  | \. (?: nan | NaN | NAN ) )\Z""",
            re.VERBOSE,
        ),
        list("-+.0123456789"),
    ),
)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a key is: its line, from 1, and the text of its value where that is a scalar."""

    line: int
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """`spots` has an entry for every path into `data`, and `()` for the whole."""

    origin: str
    data: dict[str, Any]
    spots: dict[Key, Spot]

    def line(self, key: Key) -> int:
        """The line of `key`, or of the nearest thing around it that is there."""
        while key not in self.spots:
            key = key[:-1]
        return self.spots[key].line


def read_document(raw: bytes, origin: str) -> Document:
    """Parse `raw`, the content of a profile; `origin` names it in errors.

    Raises:
        ProfileError: too large, not UTF-8, not YAML, not a mapping, or YAML that a profile has no use for.
    """
    if len(raw) > MAX_BYTES:
        raise ProfileError(f"{origin}: larger than {MAX_BYTES // 1024} KiB: not a profile")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ProfileError(f"{origin}:{line}: not UTF-8 text", "Save the file as UTF-8.") from None
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise problems_error(origin, [(line, "not a text file: it holds control characters")]) from None
    try:
        root = loader.get_single_node()
        if root is None:
            raise ProfileError(
                f"{origin}: the file is empty", "`llamaspec profile show` prints one to start from."
            )
        if not isinstance(root, yaml.MappingNode):
            raise _Refused(root.start_mark.line, f"a profile is a mapping of keys, not {_kind(root)}")
        spots: dict[Key, Spot] = {(): Spot(_line(root))}
        return Document(origin, _mapping(root, (), spots), spots)
    except _Refused as refused:
        raise problems_error(origin, [(refused.line + 1, refused.problem)]) from None
    except yaml.MarkedYAMLError as error:
        raise problems_error(origin, [located(error)]) from None
    except (ValueError, OverflowError):  # PyYAML's answer to escapes and directives out of range
        problem = (loader.line + 1, "not valid YAML: a character or a number out of range")
        raise problems_error(origin, [problem]) from None


def located(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    """The line, from 1, and what is wrong there."""
    mark = error.problem_mark or error.context_mark
    what = ", ".join(part for part in (error.context, error.problem) if part)
    return mark.line + 1 if mark else 1, f"not valid YAML: {what}"


def problems_error(
    origin: str,
    problems: Iterable[tuple[int, str]],
    hint: str = "`llamaspec profile schema` says what a profile may hold.",
) -> ProfileError:
    """One error for all of `problems`, (line, sentence) each: its message has a line for each, in order."""
    lines = [f"{origin}:{line}: {text}" for line, text in sorted(set(problems))]
    hidden = len(lines) - MAX_PROBLEMS_SHOWN
    if hidden > 0:
        lines[MAX_PROBLEMS_SHOWN:] = [f"{origin}: … and {hidden} more"]
    return ProfileError("\n".join(lines), hint)


def printable(text: str) -> str:
    """`text` as it may go to a terminal: control characters escaped."""
    return text if text.isprintable() else ascii(text)[1:-1]


def shown(text: str) -> str:
    """A piece of a file, printable and short."""
    text = printable(text)
    return text if len(text) <= 60 else f"{text[:57]}…"


class _Refused(Exception):
    """Valid YAML that is refused; `line` counts from 0, as PyYAML's marks do."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


class _Loader(yaml.SafeLoader):
    """Composes nodes and refuses as it goes: nothing that expands or nests without end is ever built."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the name and kind of attribute that PyYAML looks for

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _Refused(line, "anchors and aliases (& and *) are not allowed in a profile")
        if event.tag is not None:
            raise _Refused(line, f"tags are not allowed in a profile: {shown(event.tag)}")
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Refused(line, "too many values for a profile")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(line, "nested too deeply for a profile")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


for _tag, _form, _first in CORE_SCALARS:
    _Loader.add_implicit_resolver(_tag, _form, _first)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "a single value"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"


def _mapping(node: yaml.MappingNode, at: Key, spots: dict[Key, Spot]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag != _STR:
            raise _Refused(key_node.start_mark.line, f"a key must be text, not {_described(key_node)}")
        key = _scalar(key_node)
        if key in result:
            raise _Refused(key_node.start_mark.line, f"{shown('.'.join(map(str, (*at, key))))}: given twice")
        result[key] = _value(value_node, (*at, key), _line(key_node), spots)
    return result


def _described(node: yaml.Node) -> str:
    return shown(node.value) if isinstance(node, yaml.ScalarNode) and node.value else _kind(node)


def _value(node: yaml.Node, at: Key, line: int, spots: dict[Key, Spot]) -> Any:
    spots[at] = Spot(line, node.value if isinstance(node, yaml.ScalarNode) else None)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, at, spots)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*at, index), _line(item), spots) for index, item in enumerate(node.value)]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    text: str = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    if node.tag == _INT:
        return int(text)
    if node.tag == _FLOAT:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _Refused(node.start_mark.line, "half a character: surrogates can't be written alone")
    return text
