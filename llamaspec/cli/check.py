"""`llamaspec check MAIN DRAFT`: whether two models can speculate together; with `--time`, whether it pays."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamaspec.cli import completion
from llamaspec.cli import options as o

if TYPE_CHECKING:
    from llamaspec.control.breakeven import BreakEven
    from llamaspec.engine.timing import DraftTimes, PairTimes
    from llamaspec.gguf.pair import PairReport
    from llamaspec.settings import RuntimeSettings

_MARKEDLY = 1.25  # a draft so many times as fast is worth another file


EPILOG = """\
Examples:

llamaspec check main.gguf draft.gguf

llamaspec check main.gguf draft.gguf --time
"""


def check(
    context: typer.Context,
    main: o.MainModel,
    draft: Annotated[
        str,
        typer.Argument(
            metavar="DRAFT",
            autocompletion=completion.models,
            help="The draft model, likewise.",
        ),
    ],
    time: Annotated[
        bool, typer.Option("--time", help="Measure on this machine what a draft costs and when it pays.")
    ] = False,
    ctx_size: o.CtxSize = None,
    gpu_layers: o.GpuLayers = None,
    gpu_layers_draft: o.GpuLayersDraft = None,
    device: o.Device = None,
    threads: o.Threads = None,
    threads_batch: o.ThreadsBatch = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check from their headers that a main and a draft model share a vocabulary."""
    import json
    from dataclasses import asdict

    from llamaspec.errors import UsageError
    from llamaspec.gguf.checks import check_model
    from llamaspec.gguf.pair import check_pair
    from llamaspec.gguf.shards import read_model
    from llamaspec.hub.fetch import resolve

    if not time and o.given(context) & o.overrides(context.params)["runtime"].keys():
        raise UsageError("Threads, layers, device and context matter for --time alone.", "Add --time.")
    runtime = o.runtime_settings(context.params)
    headers = [read_model(resolve(reference).path) for reference in (main, draft)]
    for header in headers:
        check_model(header)
    pair = check_pair(*headers)
    report: dict[str, Any] = {
        "compatible": True,
        "main": str(headers[0].path),
        "draft": str(headers[1].path),
        **asdict(pair),
    }
    if not as_json:
        _print_pair(pair, headers[0].path, headers[1].path)
    if time:
        report["time"] = _time(headers[0].path, headers[1].path, draft, runtime, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(report))


def _print_pair(report: "PairReport", main: Path, draft: Path) -> None:
    from llamaspec.gguf.pair import FIRST_COMPARED

    last = min(report.main_size, report.draft_size) - 1
    typer.echo(f"Compatible: {draft.name} can draft for {main.name}.")
    typer.echo(f"Both have {report.vocabulary} vocabularies, alike from token {FIRST_COMPARED} to {last}.")
    if report.size_difference:
        larger = "main" if report.size_difference > 0 else "draft"
        typer.echo(
            f"The {larger} model has {abs(report.size_difference)} more at the end, which is no obstacle."
        )


def _time(main: Path, draft: Path, named: str, runtime: "RuntimeSettings", quiet: bool) -> dict[str, Any]:
    """Measure a pair, tell what comes of it unless `quiet`, and return it. `named`: the draft as given."""
    from dataclasses import asdict

    from llamaspec.console.notices import show_notices
    from llamaspec.console.progress import waiting
    from llamaspec.control.breakeven import break_even
    from llamaspec.engine.timing import DEPTH, time_pair

    show_notices(quiet=quiet)
    with waiting("Measuring the pair…"):
        times = time_pair(main, draft, runtime)
    verdict = break_even(times.main_prices, times.draft_step)
    if not quiet:
        _print_times(times, verdict)
    return {
        "depth": DEPTH,
        "chosen": times.chosen,
        "main_seconds": times.main,
        "draft_step_seconds": times.draft_step,
        "ratio": times.draft_step / times.main[1],
        "break_even": asdict(verdict),
        "smaller_draft": _time_smaller(draft, named, runtime, times, quiet),
    }


def _print_times(times: "PairTimes", verdict: "BreakEven") -> None:
    from llamaspec.engine.timing import DEPTH

    typer.echo(f"\nOne decode here, after {DEPTH} tokens (threads: {times.chosen['threads']}):")
    for width, seconds in times.main.items():
        typer.echo(f"  {f'main, {width} token' + 's' * (width > 1):<16}{1000 * seconds:8.1f} ms")
    typer.echo(f"  {'draft step':<16}{1000 * times.draft_step:8.1f} ms")
    typer.echo(
        f"A draft step costs {times.draft_step / times.main[1]:.2f} of a main step. {_verdict(verdict)}"
    )


def _verdict(verdict: "BreakEven") -> str:
    if verdict.acceptance is None:
        return (
            "Drafting with it never pays here: even if every token were accepted, the speed would be "
            f"{verdict.most:.2f}× plain (drafts of {verdict.length})."
        )
    return (
        f"Drafting with it pays from {100 * verdict.acceptance:.0f} % of its tokens accepted "
        f"(drafts of {verdict.length}); if all were, the speed would be up to {verdict.most:.2f}× plain."
    )


def _time_smaller(
    draft: Path, named: str, runtime: "RuntimeSettings", times: "PairTimes", quiet: bool
) -> dict[str, Any] | None:
    """What a draft requantised to fewer bits would be like; None where it has as few already."""
    from dataclasses import asdict

    from llamaspec.cli.shell import command as shell_command
    from llamaspec.console.progress import waiting
    from llamaspec.control.breakeven import break_even
    from llamaspec.engine.timing import SMALL_TYPE, could_be_smaller, time_smaller_draft
    from llamaspec.errors import DiskFullError, ModelFileError, OutOfMemoryError

    if not could_be_smaller(draft):
        return None
    try:
        with waiting(f"Trying the draft as {SMALL_TYPE}…"):
            smaller = time_smaller_draft(draft, runtime, times.chosen)
    except (DiskFullError, OutOfMemoryError, ModelFileError) as error:
        if not quiet:
            typer.echo(f"Not tried: the draft as {SMALL_TYPE}. {error.message}")
        return {"type": SMALL_TYPE, "skipped": error.message}
    verdict = break_even(times.main_prices, times.draft_step / smaller.speedup)
    command = shell_command("quantize", named, SMALL_TYPE) if smaller.speedup >= _MARKEDLY else None
    if not quiet:
        _print_smaller(smaller, verdict, command)
    return {
        "type": SMALL_TYPE,
        "original_step_seconds": smaller.original,
        "draft_step_seconds": smaller.smaller,
        "speedup": smaller.speedup,
        "break_even": asdict(verdict),
        "command": command,
    }


def _print_smaller(times: "DraftTimes", verdict: "BreakEven", command: str | None) -> None:
    from llamaspec.engine.timing import SMALL_TYPE

    told = f"\nAs {SMALL_TYPE} the draft would take {1000 * times.smaller:.1f} ms a step"
    told += f" in place of {1000 * times.original:.1f}, which is {times.speedup:.2f}× as fast"
    if command is None:
        typer.echo(f"{told}: not worth a second file.")
    else:
        typer.echo(f"{told}:\n\n  {command}\n\n{_verdict(verdict)}")
