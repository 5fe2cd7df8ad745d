"""Command lines of ours, as help texts and documents print them."""

import re
import shlex
from collections.abc import Iterator

import typer.main
from typer.core import TyperCommand, TyperGroup

from llamaspec.cli import app

_FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(llamaspec [^`\n]+)`")
_ENDS = re.compile(r"[|&;<>()]+")


def commands() -> dict[str, TyperCommand]:
    """Every command by what is typed for it: `llamaspec profile show`."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    return dict(_leaves(root, "llamaspec"))


def examples(command: TyperCommand) -> list[str]:
    """The command lines at the end of a command's help."""
    return [line for line in (command.epilog or "").splitlines() if programs(line)]


def in_markdown(text: str) -> list[str]:
    """Lines of a document that call the program: in blocks without a language, and inside sentences."""
    blocks = _FENCED.findall(text)
    shown = [line.removeprefix("$ ") for kind, block in blocks if not kind for line in block.splitlines()]
    sentences = _FENCED.sub("", text)
    return [line for line in (*shown, *_INLINE.findall(sentences)) if programs(line)]


def programs(line: str) -> list[list[str]]:
    """The arguments of each `llamaspec` that a shell would start for a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quotation mark that is none: not a command line
        return []
    calls: list[list[str]] = [[]]
    for word in words:
        if _ENDS.fullmatch(word):
            calls.append([])
        else:
            calls[-1].append(word)
    return [call[1:] for call in calls if call and re.fullmatch(r"(\S*/)?llamaspec", call[0])]


def parse(arguments: list[str]) -> None:
    """What the program makes of arguments, and nothing else: no command runs. Raises what it would refuse."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    for parameter in root.params:  # which install completion, or show the version
        parameter.callback = _end
    for _, command in _leaves(root, ""):
        command.callback = lambda **_: None
    root.main(arguments, prog_name="llamaspec", standalone_mode=False)


def _end(_context: typer.Context, _parameter: object, wanted: object) -> None:
    if wanted:
        raise typer.Exit


def _leaves(group: TyperGroup, name: str) -> Iterator[tuple[str, TyperCommand]]:
    for each, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from _leaves(command, f"{name} {each}")
        elif isinstance(command, TyperCommand) and not command.hidden:
            yield f"{name} {each}", command
