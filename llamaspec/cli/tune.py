"""`llamaspec tune`: find the settings that suit this machine and a pair, and keep them in a profile."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llamaspec.cli import completion
from llamaspec.cli import options as o

if TYPE_CHECKING:
    from llamaspec.bench.report import Finding
    from llamaspec.bench.tuning.search import Found
    from llamaspec.bench.tuning.tuner import Tuner, Wish
    from llamaspec.hub.models import Progress
    from llamaspec.profiles import Profile

EPILOG = """\
Examples:

llamaspec tune

llamaspec tune -m main.gguf -md draft.gguf --minutes 1 -o mine.yaml

llamaspec tune -p qwen2.5-coder-1.5b --workload code --threads 4 --resume --json
"""

_PANEL, _OUTPUT = "Tuning", "Output"
_option = o.in_panel


@o.takes_runtime
def tune(
    context: typer.Context,
    profile: o.Profile = None,
    model: o.Model = None,
    model_draft: o.ModelDraft = None,
    corpus: o.Corpus = None,
    minutes: Annotated[
        float, _option("--minutes", panel=_PANEL, min=1.0, max=1440.0, help="The time there is.")
    ] = 10.0,
    workload: Annotated[
        list[str] | None,
        _option(
            "--workload",
            panel=_PANEL,
            metavar="FILE|KIND",
            autocompletion=completion.kinds_of_work,
            help="Prompts to tune on, or a kind of the shipped ones; several add up.",
            show_default=False,
        ),
    ] = None,
    n_predict: Annotated[
        int, _option("-n", "--predict", "--n-predict", panel=_PANEL, min=8, help="Most tokens of an answer.")
    ] = 64,
    allow_lossy_kv: Annotated[
        bool,
        _option(
            "--allow-lossy-kv",
            panel=_PANEL,
            help="Try a quantised KV cache, too. It changes what the main model says.",
        ),
    ] = False,
    resume: Annotated[
        bool, _option("--resume", panel=_PANEL, help="Go on with a search that was not finished.")
    ] = False,
    output: Annotated[
        Path | None,
        _option(
            "-o",
            "--output",
            panel=_OUTPUT,
            metavar="FILE",
            show_default=False,
            help="Where the profile is written. Default: among your profiles, as NAME-tuned.",
        ),
    ] = None,
    force: Annotated[
        bool, _option("--force", panel=_OUTPUT, help="Replace a profile that is there.")
    ] = False,
    as_json: Annotated[bool, _option("--json", panel=_OUTPUT, help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="llama.cpp's log, and tracebacks.")
    ] = False,
) -> None:
    """Find the fastest settings for this machine, and write a profile with them.

    What you set by a flag stays as it is. Nothing is taken that is not faster beyond the noise.
    """
    from llamaspec.bench.tuning.tuner import Tuner, Wish
    from llamaspec.bench.workload import MAX_PROMPTS, choose_work
    from llamaspec.cli.interrupt import Interrupt
    from llamaspec.console.notices import show_notices
    from llamaspec.console.progress import DownloadProgress
    from llamaspec.console.tuning import print_found
    from llamaspec.native import api
    from llamaspec.profiles.storing import write_profile

    api.verbose(verbose)
    show_notices(quiet=quiet, once=True)
    work, work_name = choose_work(workload or [], MAX_PROMPTS)
    with DownloadProgress(quiet) as downloads:
        base = _base(context, downloads)
        name, path = _target(base.name, output, force)
        kept = frozenset(key for values in _given(context).values() for key in values)
        wish = Wish(work, work_name, 60.0 * minutes, n_predict, allow_lossy_kv, kept, resume)
        interrupt = Interrupt()
        with interrupt, Tuner(base, wish, downloads, interrupt) as tuner:
            found, tuned = _run(tuner, wish, name, quiet)
    write_profile(tuned, path, overwrite=force)
    tuner.forget()
    if as_json:
        _print_json(found, tuned, path, tuner.findings)
    else:
        print_found(found)
        _tell(tuner, path, name if output is None else str(path))


def _given(context: typer.Context) -> dict[str, dict[str, Any]]:
    """What the command's flags set, by section."""
    values = o.overrides(context.params)
    return {"runtime": values["runtime"], "speculation": values["speculation"]}


def _base(context: typer.Context, downloads: "Progress") -> "Profile":
    """What is tuned: a profile, with other models and settings where they are given."""
    from llamaspec.profiles import DEFAULT_PROFILE, find_profile, overlay
    from llamaspec.profiles.making import make_profile

    parameters, given = context.params, o.given(context)
    reference, main, draft = parameters["profile"], parameters["model"], parameters["model_draft"]
    if "profile" in given:  # which wins over models from the environment
        main = main if "model" in given else None
        draft = draft if "model_draft" in given else None
    if main is not None:
        made = make_profile(main, draft, progress=downloads).profile
        base = made
        if reference is not None:
            own = find_profile(reference)
            models = {"name": made.name, "license": made.license, "main": made.main, "draft": made.draft}
            base = own.model_copy(update={**models, "description": made.description, "origin": None})
    else:
        base = find_profile(reference or DEFAULT_PROFILE)
        if draft is not None:
            other = make_profile(draft, progress=downloads).profile.main
            base = base.model_copy(update={"draft": other, "origin": None})
    return overlay(base, _given(context))


def _target(name: str, output: Path | None, force: bool) -> tuple[str, Path]:
    """The new profile's name and file. Raises UsageError before any time is spent on it."""
    from llamaspec.errors import UsageError
    from llamaspec.profiles.making import slug
    from llamaspec.profiles.storing import place_of, refuse_missing_folder

    if output is None:
        tuned = name if name.endswith("-tuned") else slug(f"{name[:58]}-tuned")
        path = place_of(tuned)
    elif output.suffix not in (".yaml", ".yml") or output.is_dir():
        raise UsageError(f"{output} is no name for a profile's file.", "Name one that ends in .yaml.")
    else:
        tuned, path = slug(output.stem), output
        refuse_missing_folder(path)
    if path.exists() and not force:
        raise UsageError(f"There is a profile {path} already.", "--force replaces it; -o names another.")
    return tuned, path


def _run(tuner: "Tuner", wish: "Wish", name: str, quiet: bool) -> "tuple[Found, Profile]":
    from llamaspec.console.tuning import TuneProgress

    if wish.resume and not quiet:
        told = (
            f"{tuner.measured} runs are there already" if tuner.measured else "there is nothing to go on with"
        )
        typer.echo(f"Resuming: {told}.", err=True)
    elif tuner.unfinished and not quiet:
        typer.echo("Starting over: --resume would have gone on with the search before.", err=True)
    try:
        with TuneProgress(quiet) as progress:
            found = tuner.search(progress)
            return found, tuner.tuned(found, name)
    except KeyboardInterrupt:
        told = (
            "The same command with --resume goes on from here." if tuner.measured else "Nothing was measured."
        )
        typer.echo(f"Stopped, without a profile. {told}", err=True)
        raise typer.Exit(130) from None


def _print_json(found: "Found", tuned: "Profile", path: Path, findings: "Sequence[Finding]") -> None:
    import json

    proof = found.contended
    report = {
        "profile": str(path),
        "chosen": {
            "name": found.chosen.name,
            "settings": found.chosen.overrides,
            "draft": found.chosen.draft,
        },
        "why": found.why,
        "default_stays": not (found.chosen.overrides or found.chosen.draft),
        "contender": found.contender.name,
        "held_in": proof.held_in.model_dump() if proof.held_in else None,
        "held_out": proof.held_out.model_dump() if proof.held_out else None,
        "tried": [
            {
                "stage": one.stage,
                "name": one.change.name,
                "settings": one.change.overrides,
                "draft": one.change.draft,
                "writing": one.writing.model_dump() if one.writing else None,
                "reading": one.reading.model_dump() if one.reading else None,
                "outcome": one.outcome,
            }
            for one in found.tried
        ],
        "findings": [finding.model_dump() for finding in findings],
        "provenance": tuned.provenance.model_dump(mode="json") if tuned.provenance else None,
    }
    typer.echo(json.dumps(report))


def _tell(tuner: "Tuner", path: Path, reference: str) -> None:
    from rich.console import Console

    from llamaspec.cli.shell import command
    from llamaspec.console.bench import print_findings

    print_findings(tuner.findings, Console(stderr=True, highlight=False, soft_wrap=True))
    typer.echo(f"Written: {path}\n\n  {command('run', '-p', reference, 'Hello')}")
