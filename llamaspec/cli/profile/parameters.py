"""What the commands of `llamaspec profile` share."""

import sys
from typing import Annotated

import typer

from llamaspec.cli import completion

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE",
        autocompletion=completion.profiles,
        help="A name, a path, an https:// address, or owner/repo/file.yaml[@revision] on the hub.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Write over what is there.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def confirm(question: str) -> None:
    """Ends the command unless the answer is yes. Raises UsageError where there is nobody to ask."""
    from llamaspec.errors import UsageError

    if not is_terminal():
        raise UsageError("There is nobody to ask: standard input is no terminal.", "Say yes with --yes.")
    typer.confirm(question, abort=True, err=True)
