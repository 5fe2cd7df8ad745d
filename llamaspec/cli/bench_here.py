"""`llamaspec bench` on this machine: from a command's parameters to reports, tables and files."""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from llamaspec.bench.measure import OpenPeer, Task, measure
from llamaspec.bench.naming import AUTO, DEFAULT, FIXED, PLAIN, named, speculation
from llamaspec.bench.paired import Overrides
from llamaspec.bench.peer import Options, PeerServer, parse_peer
from llamaspec.bench.report import Report, write_report
from llamaspec.bench.sentences import OWN
from llamaspec.bench.workload import Workload
from llamaspec.cli import options as o
from llamaspec.cli.interrupt import Interrupt
from llamaspec.errors import UsageError
from llamaspec.profiles import DEFAULT_PROFILE, Profile, find_profile
from llamaspec.session import Session, load
from llamaspec.settings import Settings, SpeculationSettings

STANDARD_OUTPUT = "-"


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files that a report is written to; `json` may be `-`. Raises UsageError where one has no place."""

    json: str | None
    csv: Path | None
    html: Path | None
    png: Path | None

    def __post_init__(self) -> None:
        if self.png is not None and self.png.exists() and not self.png.is_dir():
            raise UsageError(f"{self.png} is a file.", "Name a folder for --png.")
        files = self.files
        if len({path.absolute() for path in files}) < len(files):
            raise UsageError("Two outputs have the same file.", "Name one file for each.")
        for path in files:
            if path.is_dir() or not path.absolute().parent.is_dir():
                problem = "is a folder" if path.is_dir() else "is in a folder that is not there"
                raise UsageError(f"{path} {problem}.", "Name a file in a folder that is there.")

    @property
    def files(self) -> list[Path]:
        json = None if self.json in (None, STANDARD_OUTPUT) else Path(str(self.json))
        return [path for path in (json, self.csv, self.html) if path is not None]

    @property
    def takes_standard_output(self) -> bool:
        return self.json == STANDARD_OUTPUT

    def of(self, label: str) -> "Outputs":
        """Those for one of several reports: `label` is put into their names."""

        def labelled(path: Path | None) -> Path | None:
            return path and path.with_name(f"{path.stem}.{label}{path.suffix}")

        json = self.json and str(labelled(Path(self.json)))
        return Outputs(json, labelled(self.csv), labelled(self.html), self.png and self.png / label)

    def write_json(self, report: Settings) -> None:
        """Raises OSError."""
        if self.takes_standard_output:
            typer.echo(report.model_dump_json(indent=1, by_alias=True))
        elif self.json is not None:
            write_report(report, Path(self.json))

    def write(self, report: Report) -> None:
        """Everything that was asked for. Raises OSError."""
        self.write_json(report)
        if self.csv is not None:
            from llamaspec.bench.table_csv import write_csv

            write_csv(report, self.csv)
        if self.html is not None or self.png is not None:
            from llamaspec.bench.html import write_html

            with tempfile.TemporaryDirectory() as folder:
                write_html(report, self.html or Path(folder) / "report.html", self.png)
        for path in [*self.files, *([self.png] if self.png else [])]:
            print(f"Written: {path}", file=sys.stderr)


def bench_here(context: typer.Context, work: Workload, name: str, outputs: Outputs) -> bool:
    """A report for each profile, shown and written as it is done; False where Ctrl-C ended one early."""
    from llamaspec.bench.compare import best_fixed, side_by_side
    from llamaspec.console.bench import print_report, print_table
    from llamaspec.console.notices import show_notices
    from llamaspec.native import api

    parameters = context.params
    pairs = _pairs(context)
    if len(pairs) > 1 and outputs.takes_standard_output:
        raise UsageError("Several profiles make several reports.", "Name a file in place of --json -.")
    places = [outputs.of(pair.label) if len(pairs) > 1 else outputs for pair in pairs]
    tasks = [_task(parameters, pair, work, name) for pair in pairs]
    peers = [
        _peers(parameters, task, has_draft=pair.has_draft) for pair, task in zip(pairs, tasks, strict=True)
    ]
    api.verbose(parameters["verbose"])
    show_notices(quiet=parameters["quiet"], once=True)
    reports: list[tuple[str, Report]] = []
    complete = True
    for pair, task, others, place in zip(pairs, tasks, peers, places, strict=True):
        report = _measure(parameters, pair, task, others)
        complete = len(report.trials) == len(task.prompts)
        reports.append((pair.label, report))
        try:
            place.write(report)
        finally:
            if not outputs.takes_standard_output:
                print_report(report, filter(None, [best_fixed(report, AUTO)]))
        if not complete:
            break
    if len(reports) > 1:
        print_table(side_by_side(reports))
    return complete


@dataclass(frozen=True, slots=True)
class _Pair:
    """What is loaded: a profile, or models in place of its own."""

    profile: Profile | None
    main: str | None
    draft: str | None

    @property
    def label(self) -> str:
        return self.profile.name if self.profile else "flags"

    @property
    def has_draft(self) -> bool:
        from_profile = self.profile.draft if self.profile and self.main is None else None
        return self.draft is not None or from_profile is not None


def _pairs(context: typer.Context) -> list[_Pair]:
    """As `cli.loading` does: profiles that are given win over models from the environment."""
    parameters, given = context.params, o.given(context)
    main, draft = parameters["model"], parameters["model_draft"]
    references = parameters["profile"] or []
    if references:
        main = main if "model" in given else None
        draft = draft if "model_draft" in given else None
    elif from_environment := os.environ.get("LLAMASPEC_PROFILE"):
        references = [from_environment]
    if len(references) > 1 and (main or draft):
        raise UsageError("-m and -md name one pair, and there are several profiles.", "Drop them.")
    if len(set(references)) < len(references):
        raise UsageError("A profile is named twice.", "Name each once, and use --repeat for more runs.")
    if not references:
        profile = None if main else find_profile(DEFAULT_PROFILE)
        return [_Pair(profile, main, draft)]
    profiles = [find_profile(reference) for reference in references]
    if len({profile.name for profile in profiles}) < len(profiles):
        raise UsageError("Two profiles have the same name.", "Give one of them another name.")
    return [_Pair(profile, main, draft) for profile in profiles]


def _task(parameters: Mapping[str, Any], pair: _Pair, work: Workload, name: str) -> Task:
    settings: Sequence[str] = parameters["settings"] or ([DEFAULT, AUTO] if pair.has_draft else [AUTO])
    return Task(
        settings=named(settings if PLAIN in settings else [PLAIN, *settings]),
        work=work,
        name=name,
        n_predict=parameters["n_predict"],
        repeat=parameters["repeat"],
    )


def _peers(parameters: Mapping[str, Any], task: Task, *, has_draft: bool) -> dict[str, OpenPeer]:
    """Each program under each fixed setting that is measured, else under llama.cpp's defaults; a pair
    without a draft model plainly. Raises UsageError for what names no program."""
    settings = [name for name in task.settings if name.startswith((DEFAULT, FIXED))] or [DEFAULT]
    if not has_draft:
        settings = [PLAIN]
    programs = [parse_peer(text) for text in parameters["peer"] or ()]
    if len({name for name, _ in programs}) < len(programs):
        raise UsageError("Two peers have the same name.", "Name one of them differently: NAME=PATH.")
    if taken := {name for name, _ in programs} & {OWN, *task.settings}:
        raise UsageError(f"{taken.pop()} is no name for a peer: it is one of ours.", "Name it differently.")
    for _, program in programs:
        Options.of(program)  # what is no llama-server is refused before anything is loaded
    return {
        f"{name} {setting}" if len(settings) > 1 else name: _peer(path, name, setting)
        for name, path in programs
        for setting in settings
    }


def _peer(program: Path, name: str, setting: str) -> OpenPeer:
    values = SpeculationSettings.model_validate(speculation(setting.partition("#")[0]))

    def open_peer(pair: Session) -> PeerServer:
        main, *draft = (file.path for file in pair.files)
        runtime = pair.profile.runtime
        return PeerServer(program, main, *draft, speculation=values, runtime=runtime, name=name)

    return open_peer


def _measure(parameters: Mapping[str, Any], pair: _Pair, task: Task, peers: Mapping[str, OpenPeer]) -> Report:
    from llamaspec.console.bench import BenchProgress
    from llamaspec.console.progress import DownloadProgress

    flags = o.overrides(parameters)
    corpus = {"corpus": parameters["corpus"]} if parameters["corpus"] else {}

    with ExitStack() as stack:
        downloads = stack.enter_context(DownloadProgress(parameters["quiet"]))
        watch = stack.enter_context(BenchProgress(PLAIN, parameters["quiet"]))

        def open_one(overrides: Overrides) -> Session:
            values = {**corpus, **overrides["speculation"]}
            return load(
                pair.profile,
                main=pair.main,
                draft=pair.draft,
                settings={"runtime": flags["runtime"], "speculation": values},
                draft_mismatch=parameters["draft_mismatch"],
                remember=False,
                progress=downloads,
            )

        return measure(task, open_one, watch, peers=peers, interrupt=Interrupt)
