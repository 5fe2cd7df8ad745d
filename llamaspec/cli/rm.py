"""`llamaspec rm`: delete models from the caches."""

from typing import Annotated

import typer

from llamaspec.cli import completion

EPILOG = """\
Examples:

llamaspec rm SmolLM2-135M-Instruct.Q4_1.gguf

llamaspec rm qwen2.5-coder-0.5b-instruct-q4_k_m.gguf --yes
"""


def rm(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            autocompletion=completion.kept_models,
            help="Models as `llamaspec ls` names them, or by file name.",
            show_default=False,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Delete models from the caches, llamaspec's own and the hub's."""
    from llamaspec.hub.inventory import find_models, remove

    models = find_models(names)
    for model in models:
        typer.echo(f"{model.name}  {model.size / 1e9:.2f} GB  {model.origin}", err=True)
    if not yes:
        typer.confirm("Delete?", abort=True, err=True)
    for model in models:
        remove(model)
