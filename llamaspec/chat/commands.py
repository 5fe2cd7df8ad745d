"""What a line means: a message, or a command with its argument."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamaspec.bench.naming import speculation
from llamaspec.errors import UsageError
from llamaspec.settings import SamplingSettings

END_OF_BLOCK = "/end"


@dataclass(frozen=True, slots=True)
class Form:
    """A command: its name, what it takes (in brackets: may be left out) and what it does."""

    name: str
    takes: str
    does: str


FORMS = {
    form.name: form
    for form in (
        Form("help", "", "what there is"),
        Form("multi", "", f"write a message of several lines, ended by {END_OF_BLOCK} on a line of its own"),
        Form("edit", "[TEXT]", "write the next message in your editor ($VISUAL, $EDITOR)"),
        Form("read", "[FILE]", "send a text file with the next message; without a name: don't"),
        Form("system", "[TEXT|off]", "set the system prompt, or show it"),
        Form("retry", "", "answer the last message again"),
        Form("clear", "", "begin a new conversation"),
        Form("trim", "[TURNS]", "drop the oldest turns; without a number until half of the context is free"),
        Form("save", "NAME", "keep the conversation under this name"),
        Form("load", "[NAME]", "go on with a conversation, or list those that are kept"),
        Form("profile", "[NAME]", "go on with another profile, or list them"),
        Form("spec", "[auto|off|fixed|fixed:MAX:PMIN]", "choose how tokens are drafted, or show it"),
        Form(
            "set", "[KEY [VALUE]]", "change how tokens are sampled, or show it; default as value: as it was"
        ),
        Form("stats", "", "all figures of the last answer"),
        Form("markdown", "[on|off]", "draw answers as Markdown; off keeps drafted tokens coloured"),
        Form("exit", "", "leave, as Ctrl-D does"),
    )
}
_COMMAND = re.compile(r"/(?!/)(?P<name>\S*)\s*(?P<argument>.*)", re.DOTALL)
_ALIASES = {"?": "help", "quit": "exit", "bye": "exit"}


@dataclass(frozen=True, slots=True)
class Say:
    """A message for the model."""

    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """`name` is one of FORMS; `argument` is empty where there is none."""

    name: str
    argument: str


def parse(line: str) -> Say | Command | None:
    """What a line, or a block of lines, means; None for an empty one. `//` begins a message with a slash.

    Raises UsageError for a command that there is not, or that takes more or less.
    """
    if not line.strip():
        return None
    command = _COMMAND.fullmatch(line.strip())
    if command is None:
        text = line.strip("\n").rstrip()
        return Say(text.lstrip()[1:] if text.lstrip().startswith("//") else text)
    name, argument = _ALIASES.get(command["name"], command["name"]), command["argument"]
    if name not in FORMS:
        near = difflib.get_close_matches(name.lower(), FORMS, n=1, cutoff=0.5)
        hint = f"Did you mean /{near[0]}?" if near else "/help lists the commands."
        raise UsageError(
            f"There is no command /{_shown(name)}.",
            f"{hint} A message that begins with / is written with //.",
        )
    takes = FORMS[name].takes
    if argument and not takes:
        raise UsageError(f"/{name} takes nothing.")
    if not argument and takes and not takes.startswith("["):
        raise UsageError(f"/{name} takes {takes}.")
    return Command(name, argument)


def drafting(argument: str) -> dict[str, object]:
    """Speculation settings by the name that /spec takes. Raises UsageError."""
    if argument == "fixed":
        return {"mode": "fixed"}
    try:
        return speculation("plain" if argument == "off" else argument)
    except UsageError as error:
        raise UsageError(
            error.message, "There are auto, off, fixed, and fixed:16:0.75 and the like."
        ) from None


def sampled(before: Mapping[str, Any], key: str, text: str) -> dict[str, Any]:
    """The sampling settings `before` with one that was set. Raises UsageError.

    A value is written as in JSON; `default` drops what was set.
    """
    if text == "default":
        return {name: value for name, value in before.items() if name != key}
    try:
        value = json.loads(text)
    except ValueError:
        raise UsageError(
            f"{_shown(text)} is no value for {key}.", "Numbers as 0.7, switches as true, texts as in JSON."
        ) from None
    return {**before, key: value}


def sampling_key(name: str) -> str:
    """The name of a sampling setting, written with - or _. Raises UsageError with the nearest one."""
    key = name.replace("-", "_")
    if key not in SamplingSettings.model_fields:
        near = difflib.get_close_matches(key, SamplingSettings.model_fields, n=1, cutoff=0.4)
        hint = (
            f"Did you mean {near[0]}?" if near else f"There are {', '.join(SamplingSettings.model_fields)}."
        )
        raise UsageError(f"There is no sampling setting {_shown(name)}.", hint)
    return key


def turned_on(argument: str) -> bool:
    """What `on` and `off` say. Raises UsageError for anything else."""
    if argument not in ("on", "off"):
        raise UsageError(f"{_shown(argument)} is neither on nor off.")
    return argument == "on"


def number(argument: str) -> int:
    """A number of turns. Raises UsageError."""
    if not (argument.isascii() and argument.isdigit() and len(argument) < 10 and int(argument)):
        raise UsageError(f"{_shown(argument)} is no number of turns.")
    return int(argument)


def attached(name: str, text: str) -> str:
    """A file as a part of a message, fenced so that nothing in it ends the fence."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{name}:\n{fence}\n{text.rstrip()}\n{fence}\n\n"


def _shown(text: str) -> str:
    return "".join(character for character in text[:40] if character.isprintable())
