"""`llamaspec quantize MODEL TYPE`: store a model in another type."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from llamaspec.cli import completion
from llamaspec.cli import options as o

EPILOG = """\
Examples:

llamaspec quantize qwen2.5-0.5b-f16.gguf Q4_0

llamaspec quantize owner/repo:BF16 Q8_0 -o models/mine.gguf
"""


def quantize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=completion.models,
            help="The model: a path or a hub reference.",
        ),
    ],
    type: Annotated[
        str, typer.Argument(metavar="TYPE", help="Q4_0, Q4_K_M, Q8_0, BF16 or another, in any case.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            show_default=False,
            help="Where to write. Default: beside the model, or here if that is a cache or read-only.",
        ),
    ] = None,
    threads: o.Threads = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Store a model in another type: a smaller file, often a faster draft."""
    import json
    import logging

    from llamaspec.console.notices import show_notices
    from llamaspec.console.progress import DownloadProgress
    from llamaspec.console.tables import human_bytes
    from llamaspec.gguf.checks import check_model
    from llamaspec.gguf.facts import describe
    from llamaspec.gguf.shards import read_model
    from llamaspec.hub.fetch import resolve
    from llamaspec.hub.models import tracked
    from llamaspec.native.quantize import quantize, type_name

    type = type_name(type)
    count = o.runtime_settings({"threads": threads}).threads
    show_notices(quiet=False)
    with DownloadProgress() as progress:
        source = read_model(resolve(model, progress).path)
        check_model(source)
        target = _target(source.path, type, output)
        _require_free(target, source.paths, force)
        before = describe(source)
        if requantised := before.quantisation not in ("F32", "F16", "BF16"):
            logging.getLogger(__name__).warning(
                "%s is quantised already (%s): starting from the original (F16, BF16) would lose less.",
                source.path.name,
                before.quantisation,
            )
        with tracked(progress, f"Writing {target.name}", None):
            quantize(source.path, target, type, None if count == "auto" else count, progress.advance)
    after = describe(read_model(target))
    if as_json:
        report = {
            "source": str(source.path),
            "target": str(target),
            "source_type": before.quantisation,
            "type": type,
            "source_bytes": before.file_bytes,
            "bytes": after.file_bytes,
            "requantised": requantised,
        }
        typer.echo(json.dumps(report))
        return
    typer.echo(f"Wrote {target}")
    typer.echo(
        f"{before.quantisation} {human_bytes(before.file_bytes)} → {type} {human_bytes(after.file_bytes)}, "
        f"{100 * after.file_bytes / before.file_bytes:.0f} % of the size"
    )


def _target(source: Path, type: str, output: Path | None) -> Path:
    """Where to write; beside `source` only where a person keeps their own files."""
    import os

    from llamaspec.hub.inventory import is_in_cache
    from llamaspec.hub.names import requantised_name

    name = requantised_name(source.name, type)
    if output is not None:
        return output / name if output.is_dir() else output
    beside = os.access(source.parent, os.W_OK) and not is_in_cache(source)
    return source.with_name(name) if beside else Path(name)


def _require_free(target: Path, sources: Iterable[Path], force: bool) -> None:
    """Never write over the model itself, and over another file only if that is asked for."""
    from llamaspec.errors import UsageError

    if not target.exists():
        return
    if any(target.samefile(source) for source in sources):
        raise UsageError(f"{target} is the model itself.", "Name another file with -o.")
    if target.is_dir():
        raise UsageError(f"{target} is a folder.", "Name another file with -o.")
    if not force:
        raise UsageError(f"There is a file {target} already.", "--force replaces it; -o names another.")
