"""`llamaspec pull`: fetch models ahead of their use."""

from typing import TYPE_CHECKING, Annotated

import typer

from llamaspec.cli import completion

if TYPE_CHECKING:
    from llamaspec.hub.models import LocalModel, Progress


EPILOG = """\
Examples:

llamaspec pull qwen2.5-coder-1.5b

llamaspec pull bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0
"""


def pull(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="PROFILE|REFERENCE...",
            autocompletion=completion.profiles_or_models,
            help="A profile (for its main and draft), owner/repo:QUANT, or owner/repo/file.gguf[@revision].",
            show_default=False,
        ),
    ],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the paths alone.")] = False,
) -> None:
    """Fetch models into the cache, check them, and print where they are."""
    from llamaspec.console.progress import DownloadProgress

    with DownloadProgress(quiet) as progress:
        models = [model for name in names for model in _fetch(name, progress)]
    for model in models:
        typer.echo(model.path)


def _fetch(name: str, progress: "Progress") -> "list[LocalModel]":
    from llamaspec.hub.fetch import fetch, resolve

    if not _names_profile(name):
        return [resolve(name, progress)]
    from llamaspec.profiles import find_profile

    profile = find_profile(name)
    return [fetch(source, progress) for source in (profile.main, profile.draft) if source]


def _names_profile(name: str) -> bool:
    """A YAML file here or on the hub, an address, or a bare word."""
    file, _, _revision = name.lower().partition("@")
    is_bare_word = not any(mark in name for mark in "/\\:") and not file.endswith(".gguf")
    return file.endswith((".yaml", ".yml")) or "://" in name or is_bare_word
