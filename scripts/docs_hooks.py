"""What the documentation is given while it is built: the reference of the command line, from the app."""

import re
from collections.abc import Iterator
from itertools import groupby

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from llamaspec.cli import app

PAGE = "cli.md"

_START = """\
# Command line

Made from the program itself; `llamaspec COMMAND --help` says the same. A flag wins over its environment
variable, which is in the last column, that over the profile, and that over the default.

`llamaspec --install-completion` teaches bash, zsh, fish or PowerShell to complete commands, flags, profiles,
settings and models.
"""

Tables = dict[str, str]
"""Panels of options that were told already: their Markdown, and a link to where."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs with the pages that there are."""
    files.append(File.generated(config, PAGE, content=reference()))
    return files


def reference() -> str:
    """The page, in Markdown."""
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    told: Tables = {}
    return "\n".join([_START, *_of_commands(command, "llamaspec", told)])


def _ending(command: TyperCommand) -> tuple[list[str], list[str]]:
    """What ends a command's help: command lines, and sentences."""
    lines = [line for line in (command.epilog or "").splitlines() if line and line != "Examples:"]
    typed = [line for line in lines if re.search(r"(^|\| )llamaspec ", line)]
    return typed, [line for line in lines if line not in typed]


def _of_commands(group: TyperGroup, name: str, told: Tables) -> Iterator[str]:
    for each, command in group.commands.items():
        called = f"{name} {each}"
        if isinstance(command, TyperGroup):
            yield from _of_commands(command, called, told)
        elif isinstance(command, TyperCommand) and not command.hidden:
            yield from _of_command(command, called, told)


def _of_command(command: TyperCommand, name: str, told: Tables) -> Iterator[str]:
    yield f"## `{name}`\n\n{(command.help or '').strip()}\n"
    typed, told_after = _ending(command)
    if typed:
        yield "```\n" + "\n".join(typed) + "\n```\n"
    yield from (f"{sentence}\n" for sentence in told_after)
    context = typer.Context(command, info_name=name)
    arguments = [each for each in command.params if isinstance(each, TyperArgument) and not each.hidden]
    options = [each for each in command.params if isinstance(each, TyperOption) and not each.hidden]
    if arguments:
        yield _table("argument", arguments, context)
    panels = sorted(options, key=lambda each: each.rich_help_panel or "")
    for panel, members in groupby(panels, key=lambda each: each.rich_help_panel):
        table = _table("flag", list(members), context)
        if panel is None:
            yield table
        elif table in told:
            yield f"**{panel}**: as of {told[table]}.\n"
        else:
            anchor = f"{name}-{panel}".replace(" ", "-").lower()
            told[table] = f"[`{name}`](#{anchor})"
            yield f"### {panel} {{ #{anchor} }}\n\n{table}"


def _table(kind: str, parameters: list[TyperArgument] | list[TyperOption], context: typer.Context) -> str:
    rows = [f"| {kind} | what it does | default, bounds, environment |", "| --- | --- | --- |"]
    for parameter in parameters:
        if record := parameter.get_help_record(context):
            names, text = record
            meaning = parameter.help or ""
            rest = text.removeprefix(meaning).strip().removeprefix("[").removesuffix("]")
            rows.append(f"| `{names}` | {_plain(meaning)} | {_plain(rest)} |")
    return "\n".join(rows) + "\n"


def _plain(text: str) -> str:
    """What Markdown would read as something else."""
    for mark in "\\`*_<>|[]":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("\n", " ")
