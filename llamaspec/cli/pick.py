"""`llamaspec pick MAIN`: which draft suits a main model here, or none."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from llamaspec.cli import completion
from llamaspec.cli import options as o

if TYPE_CHECKING:
    from llamaspec.bench.pick import Option
    from llamaspec.bench.tuning.candidates import Candidate
    from llamaspec.bench.tuning.race import Tally
    from llamaspec.bench.workload import Workload
    from llamaspec.hub.models import LocalModel
    from llamaspec.session import Session

EPILOG = """\
Examples:

llamaspec pick main.gguf --no-measure

llamaspec pick main.gguf draft-q4.gguf draft-q8.gguf --minutes 0.5

llamaspec pick Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M --no-measure --json
"""

_PANEL = "Measuring"
_option = partial(o.in_panel, panel=_PANEL)


@o.takes_runtime
def pick(
    context: typer.Context,
    main: o.MainModel,
    drafts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DRAFT",
            autocompletion=completion.models,
            help="Drafts to rank, likewise, besides those in the caches and beside the main model.",
            show_default=False,
        ),
    ] = None,
    no_measure: Annotated[bool, _option("--no-measure", help="Say what fits, and measure nothing.")] = False,
    minutes: Annotated[
        float, _option("--minutes", min=0.5, max=1440.0, help="The time there is for measuring.")
    ] = 3.0,
    workload: Annotated[
        list[str] | None,
        _option(
            "--workload",
            metavar="FILE|KIND",
            autocompletion=completion.kinds_of_work,
            help="Prompts to measure with, or a kind of the shipped ones; several add up.",
            show_default=False,
        ),
    ] = None,
    n_predict: Annotated[
        int, _option("-n", "--predict", "--n-predict", min=8, help="Most tokens of an answer.")
    ] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="llama.cpp's log, and tracebacks.")
    ] = False,
) -> None:
    """Rank what could draft for a main model: by whether it fits, its size, and what it earns here."""
    from llamaspec.bench.pick import best, find_options, ranked
    from llamaspec.bench.workload import MAX_PROMPTS, choose_work
    from llamaspec.console.notices import show_notices
    from llamaspec.console.pick import print_options
    from llamaspec.console.progress import DownloadProgress
    from llamaspec.errors import UsageError
    from llamaspec.hub.fetch import resolve
    from llamaspec.native import api

    if no_measure and (idle := o.given(context) & {"minutes", "workload", "n_predict"}):
        names = ", ".join("--" + {"n_predict": "predict"}.get(name, name) for name in sorted(idle))
        raise UsageError(f"With --no-measure nothing comes of {names}.", "Drop one of them.")
    work, _ = choose_work(workload or [], MAX_PROMPTS if workload else None)
    runtime = o.runtime_settings(context.params)
    api.verbose(verbose)
    show_notices(quiet=quiet or as_json, once=True)
    with DownloadProgress(quiet) as downloads:
        model = resolve(main, downloads)
        named = [resolve(draft, downloads).path for draft in drafts or []]
        free, on_gpus = _free_memory(runtime.device)
        options = find_options(model.path, named, runtime, free + on_gpus)
    tally = None
    if not no_measure:
        tally = _measure(context, model, options, work, on_gpus)
    rows = ranked(options, tally)
    advice = _advice(main, rows, best(options, tally) if tally else None)
    if tally and any(one.undecided for one in rows):
        advice = (f"There was too little time to tell them apart (--minutes). {advice[0]}", advice[1])
    if as_json:
        _print_json(model, rows, advice)
    else:
        print_options(rows, measured=tally is not None)
        typer.echo(f"\n{advice[0]}\n\n  {advice[1]}")


def _free_memory(device: str) -> tuple[int, int]:
    """Bytes that are free: of the host, and of the GPUs that would be used."""
    from llamaspec.native.devices import available_memory, list_devices, select

    gpus = select(device, list_devices())
    return available_memory(), sum(gpu.free_bytes for gpu in gpus if gpu.kind == "gpu")


def _measure(
    context: typer.Context, model: "LocalModel", options: "Sequence[Option]", work: "Workload", on_gpus: int
) -> "Tally":
    from llamaspec.bench.pick import NO_DRAFT, measure
    from llamaspec.bench.tuning.live import MOST, LiveRace
    from llamaspec.cli.interrupt import Interrupt
    from llamaspec.console.tuning import TuneProgress
    from llamaspec.session import load

    parameters = context.params
    runtime = o.overrides(parameters)["runtime"]

    def open_one(candidate: "Candidate") -> "Session":
        settings = {"runtime": runtime, **candidate.overrides}
        return load(main=str(model.path), draft=candidate.draft or None, settings=settings, remember=False)

    most = MOST
    if on_gpus:  # sessions that don't all fit on them would be placed differently, each by what it finds
        largest = model.size + max(one.size for one in options if one.usable)
        most = min(MOST, max(1, on_gpus // (2 * largest)))
    interrupt = Interrupt()
    with (
        interrupt,
        LiveRace(open_one, NO_DRAFT.candidate, should_stop=interrupt, most=most) as race,
        TuneProgress(parameters["quiet"]) as progress,
    ):
        seconds, n_predict = 60.0 * parameters["minutes"], parameters["n_predict"]
        return measure(options, race, work.prompts, seconds, n_predict, progress)


def _advice(main: str, rows: "Sequence[Option]", chosen: "Option | None") -> tuple[str, str]:
    """What to do, as a sentence and as a command."""
    from llamaspec.cli.shell import command

    if chosen is None:
        usable = [one for one in rows if one.kind == "model" and one.usable]
        if usable:
            told = f"The smallest that fits is {usable[0].name}. Without --no-measure you see what it earns."
            return told, command("run", "-m", main, "-md", usable[0].reference, "Hello")
        absent = [one for one in rows if not one.here]
        if absent:
            return f"None is here. {absent[0].name} is one to fetch:", command("pull", absent[0].reference)
        return "No draft model for it is known here. N-grams need none:", command("run", "-m", main, "Hello")
    words = ["run", "-m", main]
    if chosen.kind == "model":
        words += ["-md", chosen.reference]
    elif chosen.kind == "none":
        words.append("--no-spec")
    return f"Best here: {chosen.name}.", command(*words, "Hello")


def _print_json(model: "LocalModel", rows: "Sequence[Option]", advice: tuple[str, str]) -> None:
    import json

    from llamaspec.cli.shell import command

    listed = [
        {
            "kind": one.kind,
            "name": one.name,
            "model": one.reference or None,
            "here": one.here,
            "size": one.size or None,
            "compatible": None if not one.here else not one.problem,
            "problem": one.problem or None,
            "fits_in_memory": one.fits,
            "speedup": one.speedup.model_dump() if one.speedup else None,
            "verdict": one.speedup.verdict if one.speedup else None,
            "failed": one.failed or None,
            "pull": None if one.here else command("pull", one.reference),
        }
        for one in rows
    ]
    typer.echo(
        json.dumps({"main": model.path.name, "options": listed, "advice": advice[0], "command": advice[1]})
    )
