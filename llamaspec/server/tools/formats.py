"""The formats in which models write tool calls, one table entry each, and how text is matched with them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple

ID = "#" * 9
"""Stands in a format for an id of nine letters and digits, as Mistral's models write it."""

_BLANK = r"[ \t\r\n]{0,32}"
_NAME = r"(?P<name>[a-zA-Z0-9_-]{1,64})"
_JSON_FOLLOWS = r"(?=\{)"


class Matcher(NamedTuple):
    """Two patterns for one text that may still be growing."""

    full: re.Pattern[str]
    partial: re.Pattern[str]  # up to the end of the text, which may yet become a full match


@dataclass(frozen=True, slots=True)
class Form:
    """One way to write a call: `before`, the function's name, `after`, the arguments, one of `tails`."""

    before: str
    after: str
    tails: tuple[str, ...]
    leads: bool = False  # a call only at the start of an answer, or behind another call


@dataclass(frozen=True)
class ToolFormat:
    """How calls are written: `begin`, one call or several with `between` between them, `end`.

    The first of `forms` is the template's; models are known to write the others too. `marker` is what the
    text of a call begins with and other text does not hold; "" where only the start of the answer tells
    them apart. `single`: templates with this format take no more than one call in an answer.
    """

    name: str
    forms: tuple[Form, ...]
    marker: str
    begin: str = ""
    between: str = ""
    end: str = ""
    single: bool = False
    xml: bool = False  # arguments are tags, not JSON

    @cached_property
    def openers(self) -> tuple[Matcher, ...]:
        """For each form the text up to the arguments; the group `name` is the function's."""
        return tuple(_matcher((*_atoms(self.begin), *self._head(form))) for form in self.forms)

    @cached_property
    def closers(self) -> tuple[tuple[Matcher, ...], ...]:
        """For each form what may follow the arguments. Where there is a group `name`, a call follows."""
        found = []
        for form in self.forms:
            ends = [_atoms(tail + self.end) for tail in form.tails if tail + self.end]
            if self.begin:
                ends += [(*_atoms(tail + self.between), *self._head(form)) for tail in form.tails]
            found.append(tuple(map(_matcher, ends)))
        return tuple(found)

    def wrote(self, text: str, name: str, arguments: str) -> bool:
        """Whether a template wrote this call in this format somewhere in `text`."""
        form = self.forms[0]
        head = (*_atoms(self.begin + form.before), re.escape(name), *_atoms(form.after))
        calls = ((*head, *_atoms(arguments), *_atoms(tail + self.end)) for tail in form.tails)
        return any(re.search("".join(call), text) for call in calls)

    def _head(self, form: Form) -> tuple[str, ...]:
        follows = () if self.xml else (_JSON_FOLLOWS,)
        return (*_atoms(form.before), _NAME, *_atoms(form.after), *follows)


HERMES = ToolFormat(
    "hermes",
    (
        Form('<tool_call>\n{"name": "', '", "arguments": ', ("}\n</tool_call>",)),
        Form('```json\n{"name": "', '", "arguments": ', ("}\n```",), leads=True),
        Form('{"name": "', '", "arguments": ', ("}",), leads=True),
    ),
    marker="<tool_call>",
    between="\n",
)
LLAMA = ToolFormat(
    "llama",
    (
        Form('{"name": "', '", "parameters": ', ("}",), leads=True),
        Form('<|python_tag|>{"name": "', '", "parameters": ', ("}",), leads=True),
        Form('{"type": "function", "name": "', '", "parameters": ', ("}",), leads=True),
    ),
    marker="",
    single=True,
)
MISTRAL_LIST = ToolFormat(
    "mistral-list",
    (Form('{"name": "', '", "arguments": ', ("}", f', "id": "{ID}"}}')),),
    marker="[TOOL_CALLS]",
    begin="[TOOL_CALLS][",
    between=", ",
    end="]",
)
_MISTRAL = Form("[TOOL_CALLS]", "[ARGS]", ("",))
_MISTRAL_WITH_ID = Form("[TOOL_CALLS]", f"[CALL_ID]{ID}[ARGS]", ("",))
MISTRAL = ToolFormat("mistral", (_MISTRAL, _MISTRAL_WITH_ID), marker="[TOOL_CALLS]")
MISTRAL_ID = ToolFormat("mistral-id", (_MISTRAL_WITH_ID, _MISTRAL), marker="[TOOL_CALLS]")
QWEN_XML = ToolFormat(
    "qwen-xml",
    (Form("<tool_call>\n<function=", ">\n", ("\n</tool_call>",)),),
    marker="<tool_call>",
    between="\n",
    xml=True,
)

FORMATS = (HERMES, LLAMA, MISTRAL_LIST, MISTRAL, MISTRAL_ID, QWEN_XML)


def literal(text: str) -> Matcher:
    """Matches just this text."""
    return _matcher(tuple(map(re.escape, text)))


def _atoms(text: str) -> tuple[str, ...]:
    """Patterns that match `text` one after the other, with any blanks around JSON's punctuation."""
    atoms: list[str] = []
    for character in text:
        if character.isspace():
            atoms.append(_BLANK)
        elif character in "{}[]:,":
            atoms += (_BLANK, re.escape(character), _BLANK)
        else:
            atoms.append("[a-zA-Z0-9]" if character == "#" else re.escape(character))
    return tuple(atoms)


@lru_cache(maxsize=256)
def _matcher(atoms: Sequence[str]) -> Matcher:
    atoms = [atom for before, atom in pairwise(("", *atoms)) if (atom, before) != (_BLANK, _BLANK)]
    partial = ""
    for atom in reversed(atoms):
        partial = f"(?:{atom}{partial})?"
    return Matcher(re.compile("".join(atoms)), re.compile(partial + r"\Z"))
