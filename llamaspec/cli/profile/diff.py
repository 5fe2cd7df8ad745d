"""`llamaspec profile diff A B`."""

import json
from typing import TYPE_CHECKING, Any

import typer

from llamaspec.cli.profile.parameters import Json, Reference

if TYPE_CHECKING:
    from llamaspec.profiles.comparing import Difference

_LONGEST = 200
EPILOG = """\
Examples:

llamaspec profile diff qwen2.5-coder-1.5b qwen2.5-coder-7b

llamaspec profile diff mine pair.yaml --json
"""


def diff_command(first: Reference, second: Reference, as_json: Json = False) -> None:
    """Compare two profiles by key, defaults included. Exits with 1 if they differ, as diff does."""
    from dataclasses import asdict

    from llamaspec.profiles import find
    from llamaspec.profiles.comparing import differences

    ours, theirs = find(first), find(second)
    found = differences(ours.profile, theirs.profile)
    provenance = [each for each in found if each.key.split(".")[0] == "provenance"]
    settings = [each for each in found if each not in provenance]
    if as_json:
        told = {
            "first": ours.origin,
            "second": theirs.origin,
            "differences": [asdict(each) for each in settings],
            "provenance": [asdict(each) for each in provenance],
        }
        typer.echo(json.dumps(told, indent=2))
    elif found:
        typer.echo(f"--- {ours.origin}\n+++ {theirs.origin}")
        _print(settings)
        if provenance:
            typer.echo("\nHow they were tuned:")
            _print(provenance)
    raise typer.Exit(1 if found else 0)


def _print(found: "list[Difference]") -> None:
    for each in found:
        typer.echo(f"{each.key}: {_written(each.first)} → {_written(each.second)}")


def _written(value: Any) -> str:
    from llamaspec.profiles.document import printable

    text = "–" if value is None else printable(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
