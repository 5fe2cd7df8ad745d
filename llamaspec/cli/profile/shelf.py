"""`llamaspec profile list`, `show`, `validate`, `schema` and `rm`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from llamaspec.cli import completion
from llamaspec.cli.profile.parameters import Json, Reference, Yes, confirm
from llamaspec.errors import ProfileError

LIST_EPILOG = """\
Examples:

llamaspec profile list

llamaspec profile list --json
"""

SHOW_EPILOG = """\
Examples:

llamaspec profile show qwen2.5-coder-1.5b

llamaspec profile show pair.yaml --json
"""

VALIDATE_EPILOG = """\
Examples:

llamaspec profile validate pair.yaml

llamaspec profile validate mine.yaml pair.yaml
"""

SCHEMA_EPILOG = """\
Examples:

llamaspec profile schema

llamaspec profile schema > profile.schema.json
"""

RM_EPILOG = """\
Examples:

llamaspec profile rm mine

llamaspec profile rm mine --yes
"""


def list_command(as_json: Json = False) -> None:
    """List the profiles that can be had by name: the user's and the shipped ones."""
    from llamaspec.profiles import DEFAULT_PROFILE, list_entries

    rows = []
    for entry in list_entries():
        try:
            profile = entry.load()
            description, valid, added_from = profile.description, True, profile.origin
        except ProfileError as error:
            description, valid, added_from = error.message.splitlines()[0], False, None
        rows.append(
            {
                "name": entry.name,
                "description": description,
                "valid": valid,
                "default": entry.name == DEFAULT_PROFILE,
                "from": entry.shelf,
                "added_from": added_from,
                "path": str(entry.path),
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max((len(str(row["name"])) for row in rows), default=0)
    for row in rows:
        yours = f"added from {row['added_from']}" if row["added_from"] else "yours"
        notes = [
            note for note, holds in (("default", row["default"]), (yours, row["from"] == "user")) if holds
        ]
        suffix = f" ({', '.join(notes)})" if notes else ""
        problem = "" if row["valid"] else "not valid: "
        typer.echo(f"{row['name']:<{width}}  {problem}{row['description']}{suffix}")


def show_command(reference: Reference, as_json: Json = False) -> None:
    """Print a profile as it takes effect, with every default, and where it comes from."""
    from llamaspec.profiles import dump, find

    found = find(reference)
    if as_json:
        profile = found.profile.model_dump(mode="json", by_alias=True)
        typer.echo(json.dumps({"origin": found.origin, "profile": profile}, indent=2))
    else:
        typer.echo(f"# {found.origin}\n{dump(found.profile, full=True)}", nl=False)


def validate_command(files: Annotated[list[Path], typer.Argument(metavar="FILE...")]) -> None:
    """Check profiles, and list everything that is wrong with them."""
    from llamaspec.profiles import load_profile

    failed = False
    for path in files:
        try:
            load_profile(path)
            typer.echo(f"{path}: valid")
        except ProfileError as error:
            failed = True
            typer.echo(error.message, err=True)
    if failed:
        raise typer.Exit(ProfileError.exit_code)


def schema_command() -> None:
    """Print the JSON Schema of a profile, for editors."""
    from llamaspec.profiles import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def rm_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            autocompletion=completion.own_profiles,
            help="A profile of yours.",
            show_default=False,
        ),
    ],
    yes: Yes = False,
) -> None:
    """Delete a profile of yours. Its models stay: `llamaspec rm` deletes those."""
    from llamaspec.profiles.storing import own_entry

    path = own_entry(name).path
    if not yes:
        confirm(f"Delete {path}?")
    path.unlink()
