"""`llamaspec ls`: the models in the caches."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llamaspec.hub.inventory import CachedModel
    from llamaspec.hub.sources import Source


EPILOG = """\
Examples:

llamaspec ls

llamaspec ls --json
"""


def ls(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the models in the caches, llamaspec's own and the hub's."""
    from llamaspec.hub.inventory import list_models
    from llamaspec.profiles import list_profiles

    models, known = list_models(), list_profiles()
    users = {
        model.name: [
            profile.name
            for profile in known
            if any(_is_model_of(source, model) for source in (profile.main, profile.draft) if source)
        ]
        for model in models
    }
    if as_json:
        typer.echo(json.dumps([_as_dict(model, users[model.name]) for model in models], indent=2))
    elif models:
        _print_table(models, users)
    else:
        typer.echo("No models yet: `llamaspec pull PROFILE` fetches some.", err=True)


def _is_model_of(source: "Source", model: "CachedModel") -> bool:
    """By hash where the profile has one; else by the places that it names."""
    from llamaspec.hub.sources import ModelSource

    if source.sha256 and model.sha256:
        return source.sha256 == model.sha256
    return isinstance(source, ModelSource) and model.name == f"{source.repo}/{source.file}"


def _as_dict(model: "CachedModel", profiles: list[str]) -> dict[str, object]:
    return {
        "name": model.name,
        "size": model.size,
        "quantisation": model.quantisation,
        "origin": model.origin,
        "sha256": model.sha256,
        "complete": model.complete,
        "profiles": profiles,
        "paths": [str(path) for path in model.paths],
    }


def _print_table(models: "list[CachedModel]", users: dict[str, list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("Name", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Size", justify="right")
    for heading in ("Quant", "From", "Profiles"):
        table.add_column(heading)
    for model in models:
        name = Text(model.name, overflow="fold")
        if not model.complete:
            name.append(" (incomplete)", style="yellow")
        table.add_row(
            name,
            f"{model.size / 1e9:.2f} GB",
            model.quantisation or "",
            model.origin,
            ", ".join(users[model.name]),
        )
    Console().print(table)
