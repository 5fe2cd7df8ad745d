"""`llamaspec profile`: list, show and check profiles."""

import json
from pathlib import Path
from typing import Annotated

import typer

from llamaspec.errors import ProfileError

app = typer.Typer(help="List, show and check profiles.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the profiles that can be had by name: the user's and the shipped ones."""
    from llamaspec.profiles import DEFAULT_PROFILE, list_entries

    rows = []
    for entry in list_entries():
        try:
            profile = entry.load()
            description, valid = profile.description, True
        except ProfileError as error:
            description, valid = error.message.splitlines()[0], False
        rows.append(
            {
                "name": entry.name,
                "description": description,
                "valid": valid,
                "default": entry.name == DEFAULT_PROFILE,
                "from": entry.shelf,
                "path": str(entry.path),
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max((len(str(row["name"])) for row in rows), default=0)
    for row in rows:
        notes = [
            note for note, holds in (("default", row["default"]), ("yours", row["from"] == "user")) if holds
        ]
        suffix = f" ({', '.join(notes)})" if notes else ""
        problem = "" if row["valid"] else "not valid: "
        typer.echo(f"{row['name']:<{width}}  {problem}{row['description']}{suffix}")


@app.command("show")
def show_command(
    reference: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A name, a path, an https:// address, or owner/repo/file.yaml."),
    ],
    as_json: Json = False,
) -> None:
    """Print a profile as it takes effect, with every default, and where it comes from."""
    from llamaspec.profiles import dump, find

    found = find(reference)
    if as_json:
        profile = found.profile.model_dump(mode="json", by_alias=True)
        typer.echo(json.dumps({"origin": found.origin, "profile": profile}, indent=2))
    else:
        typer.echo(f"# {found.origin}\n{dump(found.profile, full=True)}", nl=False)


@app.command("validate")
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


@app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a profile, for editors."""
    from llamaspec.profiles import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
