"""`llamaspec profile share PROFILE`."""

from pathlib import Path
from typing import Annotated

import typer

from llamaspec.cli.profile.parameters import Force, Reference

EPILOG = """\
Examples:

llamaspec profile share qwen2.5-coder-1.5b > shared.yaml

llamaspec profile share mine -o mine.yaml
"""


def share_command(
    reference: Reference,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write it there; default: standard output.")
    ] = None,
    force: Force = False,
) -> None:
    """Print a profile as it can be given to others: for a gist, or a repository on the hub.

    Where it names files of this machine it names the published ones instead, or is refused. What it says
    about how it was tuned stays in it. What was left out is told on standard error.
    """
    from llamaspec.console.progress import DownloadProgress
    from llamaspec.profiles import find_profile
    from llamaspec.profiles.sharing import share
    from llamaspec.profiles.storing import refuse_missing_folder, write_text

    if output is not None:
        refuse_missing_folder(output)
    with DownloadProgress(quiet=False) as progress:
        shared = share(find_profile(reference), progress)
    if output is None:
        typer.echo(shared.text, nl=False)
    else:
        write_text(shared.text, output, overwrite=force)
    for remark in shared.remarks:
        typer.echo(f"note: {remark}", err=True)
