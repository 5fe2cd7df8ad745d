"""`llamaspec profile new MAIN [DRAFT]`."""

from pathlib import Path
from typing import Annotated

import typer

from llamaspec.cli import completion
from llamaspec.cli.profile.parameters import Force

EPILOG = """\
Examples:

llamaspec profile new Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M --name coder

llamaspec profile new main.gguf draft.gguf -o pair.yaml
"""


def new_command(
    main: Annotated[
        str,
        typer.Argument(
            metavar="MAIN",
            autocompletion=completion.models,
            help="Main model: a file, owner/repo:QUANT or owner/repo/file.gguf[@revision].",
            show_default=False,
        ),
    ],
    draft: Annotated[
        str | None,
        typer.Argument(
            metavar="DRAFT",
            autocompletion=completion.models,
            help="Draft model, named likewise.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Its name; default: the main model's.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write it there; default: among your profiles.")
    ] = None,
    no_fetch: Annotated[
        bool, typer.Option("--no-fetch", help="Fetch no models: a pair that is not here stays unchecked.")
    ] = False,
    force: Force = False,
) -> None:
    """Make a profile of two models, with their places, sizes, hashes and licences, once they fit together.

    Prints where it is.
    """
    from llamaspec.console.progress import DownloadProgress
    from llamaspec.profiles.making import make_profile
    from llamaspec.profiles.profile import NAME
    from llamaspec.profiles.storing import hides_shipped, place_of, refuse_to_overwrite, write_profile

    if name is None and output is not None and NAME.fullmatch(output.stem):
        name = output.stem
    if target := output or (place_of(name) if name else None):
        refuse_to_overwrite(target, force)  # before anything is fetched
    with DownloadProgress(quiet=False) as progress:
        made = make_profile(main, draft, name=name, fetch_models=not no_fetch, progress=progress)
    path = output or place_of(made.profile.name)
    write_profile(made.profile, path, overwrite=force)
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    if output is None and hides_shipped(made.profile.name):
        typer.echo(f"note: it hides the shipped profile {made.profile.name}.", err=True)
    typer.echo(path)
