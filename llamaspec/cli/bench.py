"""`llamaspec bench`: what speculation earns here, measured; or two measurements compared."""

from pathlib import Path
from typing import Annotated, Any

import typer

from llamaspec.cli import completion
from llamaspec.cli import options as o

EPILOG = """\
Examples:

llamaspec bench --workload chat -n 32

llamaspec bench --workload code --settings auto,fixed:16:0.75 -n 32 --html report.html

llamaspec bench -m main.gguf -md draft.gguf --workload mine.yaml --json before.json

llamaspec bench --compare before.json after.json

llamaspec bench --url http://127.0.0.1:8080/v1 --concurrency 1,4 --workload chat -n 32
"""

_PANEL, _SERVER, _OUTPUT = "Measuring", "Against a server", "Output"


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers of clients, as 1,4.") from None


_option = o.in_panel


@o.takes_runtime
def bench(
    context: typer.Context,
    profile: Annotated[
        list[str] | None,
        _option(
            "--profile",
            "-p",
            panel="Models",
            autocompletion=completion.profiles,
            help="Profile; several are measured one after the other.",
        ),
    ] = None,
    model: o.Model = None,
    model_draft: o.ModelDraft = None,
    draft_mismatch: o.DraftMismatch = "stop",
    corpus: o.Corpus = None,
    workload: Annotated[
        list[str] | None,
        _option(
            "--workload",
            "-w",
            panel=_PANEL,
            autocompletion=completion.kinds_of_work,
            help="A YAML file of prompts, or a kind of them; several.",
        ),
    ] = None,
    settings: Annotated[
        Any,
        _option(
            "--settings",
            panel=_PANEL,
            parser=_words,
            autocompletion=completion.settings,
            metavar="NAME,…",
            help="plain, default (llama.cpp's), fixed:MAX:PMIN, auto, auto:DRAFTER+DRAFTER, profile (its "
            "own). Without: default,auto. plain is always measured.",
        ),
    ] = None,
    prompts: Annotated[
        int | None,
        _option(
            "--prompts",
            panel=_PANEL,
            min=1,
            show_default=False,
            help="Of each kind the first so many; without: 1 of the shipped ones, all of a file.",
        ),
    ] = None,
    repeat: Annotated[
        int, _option("--repeat", panel=_PANEL, min=1, max=1000, help="How often each prompt is answered.")
    ] = 1,
    n_predict: Annotated[
        int,
        _option(
            "-n",
            "--predict",
            "--n-predict",
            panel=_PANEL,
            min=2,
            max=1 << 24,
            help="Most tokens of an answer; a prompt of a file may ask for fewer.",
        ),
    ] = 96,
    peer: Annotated[
        list[str] | None,
        _option(
            "--peer",
            panel=_PANEL,
            metavar="llama-server=PATH",
            help="Measure another program on the same prompts, a whole answer at a time.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        _option("--url", panel=_SERVER, help="Measure the server at this OpenAI-compatible address (…/v1)."),
    ] = None,
    concurrency: Annotated[
        Any,
        _option(
            "--concurrency", panel=_SERVER, parser=_counts, metavar="N,…", help="Clients at a time: 1,4."
        ),
    ] = None,
    model_name: Annotated[
        str | None, _option("--model-name", panel=_SERVER, help="The model, by the server's name for it.")
    ] = None,
    api_key: Annotated[
        str | None,
        _option("--api-key", panel=_SERVER, help="The server's key.", envvar="LLAMASPEC_API_KEY"),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", metavar="A.json B.json", help="Compare two reports; nothing is measured."),
    ] = None,
    json_file: Annotated[
        str | None,
        _option("--json", panel=_OUTPUT, metavar="FILE", help="The whole report; - for standard output."),
    ] = None,
    csv_file: Annotated[
        Path | None, _option("--csv", panel=_OUTPUT, metavar="FILE", help="A row for each answer.")
    ] = None,
    html_file: Annotated[
        Path | None, _option("--html", panel=_OUTPUT, metavar="FILE", help="One page with tables and plots.")
    ] = None,
    png_folder: Annotated[
        Path | None, _option("--png", panel=_OUTPUT, metavar="FOLDER", help="Each plot as a picture.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress: the tables alone, and warnings.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="llama.cpp's log, and tracebacks.")
    ] = False,
) -> None:
    """Measure on this machine how fast a pair is with speculation and without, in turns."""
    given = o.given(context)
    if compare is not None:
        _refuse(given - {"compare", "quiet", "verbose"}, "--compare measures nothing")
        _compare(*compare)
        return
    from llamaspec.bench.workload import choose_work
    from llamaspec.cli.bench_here import Outputs, bench_here

    outputs = Outputs(json_file, csv_file, html_file, png_folder)
    work, name = choose_work(workload or [], prompts)
    if url is not None:
        runtime = set(o.overrides(context.params)["runtime"])
        _refuse(given & (_LOCAL | runtime), "A server has models and settings of its own")
        from llamaspec.cli.bench_server import bench_server

        if not bench_server(url, work, name, context.params, outputs):
            raise typer.Exit(130)
        return
    _refuse(given & {"concurrency", "model_name", "api_key"}, "There is no server without --url", "Add it.")
    if not bench_here(context, work, name, outputs):
        raise typer.Exit(130)


_LOCAL = {
    *("profile", "model", "model_draft", "draft_mismatch", "corpus", "settings", "peer"),
    *("csv_file", "html_file", "png_folder"),
}
_FLAGS = {
    "json_file": "json",
    "csv_file": "csv",
    "html_file": "html",
    "png_folder": "png",
    "n_predict": "predict",
}


def _refuse(names: set[str], why: str, hint: str = "Drop it.") -> None:
    from llamaspec.errors import UsageError

    if names:
        flags = ", ".join("--" + _FLAGS.get(name, name.replace("_", "-")) for name in sorted(names))
        raise UsageError(f"{why}: nothing would come of {flags}.", hint)


def _compare(before: Path, after: Path) -> None:
    from llamaspec.bench.compare import caveats, comparison
    from llamaspec.bench.report import read_report
    from llamaspec.console.bench import print_table

    old, new = read_report(before), read_report(after)
    print_table(comparison(old, new), caveats(old, new))
