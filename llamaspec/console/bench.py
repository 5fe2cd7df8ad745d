"""Benchmarks on the terminal: progress with the time left, a report's tables, two reports compared."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self

from llamaspec.bench import sentences, tables
from llamaspec.bench.report import BUSY, Finding, Report, TrialRecord
from llamaspec.console.progress import measuring_bar
from llamaspec.console.tables import print_figures, wide_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table as RichTable

_STYLES = {"faster": "green", "slower": "red"}


class BenchProgress:
    """Follows a measurement (a `bench.measure.Watcher`) on standard error; a context manager.

    A bar with the time left on a terminal, a line for each trial everywhere; `quiet` asks for warnings alone.
    """

    def __init__(self, baseline: str, quiet: bool = False) -> None:
        from rich.console import Console

        self._baseline = baseline
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._trials = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def loading(self, what: str) -> None:
        self._say(f"Loading for {what} …")

    def noticed(self, finding: Finding) -> None:
        print_findings([finding], self._console)

    def begins(self, trials: int, seconds: float) -> None:
        self._trials = trials
        self._say(f"{trials} trials, about {_duration(seconds)}. Ctrl-C ends it with what is done.")
        if self._console.is_terminal and not self._quiet:
            self._bar = _bar(self._console, trials, f"{_duration(seconds)} left")

    def tried(self, trial: TrialRecord, number: int, seconds_left: float) -> None:
        self._say(f"{number:3}/{self._trials}  {trial_line(trial, self._baseline)}")
        if self._bar is not None:
            left = f"{_duration(seconds_left)} left"
            self._bar.update(self._bar.task_ids[0], completed=number, left=left)

    def finishing(self, what: str) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], left=what)

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, markup=False)


def trial_line(trial: TrialRecord, baseline: str) -> str:
    """The baseline's speed, and for the others how many times that."""
    base = trial.runs[baseline].speed
    parts = [f"{trial.prompt:24}", f"{baseline} {base:.2f} tokens/s" if base else f"{baseline} –"]
    for name, run in trial.runs.items():
        if name != baseline:
            parts.append(f"{name} {run.speed / base:.2f}×" if run.speed and base else f"{name} –")
    if trial.others_share > BUSY:
        parts.append(f"(others used {trial.others_share:.0%} of the machine)")
    return "  ".join(parts)


def print_report(report: Report, conclusions: Iterable[str] = ()) -> None:
    """What was found, on standard output: a row for each setting, speeds by kind, and what to make of it."""
    console = wide_console()
    console.print()
    draft = f" + {report.draft.file}" if report.draft else ""
    console.print(f"{report.main.file}{draft}", style="bold", markup=False)
    console.print(f"{report.machine.cpu}, {report.machine.cores} cores, {_gpus(report)}", style="dim")
    console.print()
    print_figures(_table(tables.overview(report)), console)
    by_kind = tables.speedup_by_kind(report)
    if len(report.work.kinds) > 1 and len(by_kind.header) > 1:
        console.print(
            f"\nTimes {report.baseline}, with 95 % intervals where there are three answers or more",
            style="bold",
        )
        print_figures(_table(by_kind), console)
    console.print()
    lines = [f"{sentences.headline(report)}.", *conclusions]
    if report.roofline:
        lines.append(sentences.roofline(report.roofline))
    for line in [*lines, sentences.method(report), sentences.quiet(report)]:
        if line:
            console.print(line, markup=False)
    print_findings(report.findings, console)


def print_table(table: tables.Table, notes: Iterable[str] = ()) -> None:
    """A table by itself on standard output, with sentences below."""
    console = wide_console()
    print_figures(_table(table), console)
    console.print()
    for note in notes:
        console.print(note, markup=False)


def print_findings(findings: Sequence[Finding], console: "Console") -> None:
    from rich.text import Text

    for finding in findings:
        console.print(Text.assemble(("note:  ", "bold yellow"), finding.problem))
        console.print(Text.assemble("       ", (finding.remedy, "dim")))


def _table(table: tables.Table) -> "RichTable":
    """With a column for verdicts, where there are any."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="dim")
    header = [*table.header, *(["verdict"] if table.notes else [])]
    for place, name in enumerate(header):
        shown.add_column(name, justify="left" if place in (0, len(table.header)) else "right")
    for row, cells in enumerate(table.rows):
        verdict = table.notes.get(row, "")
        told = [Text(verdict, style=_STYLES.get(verdict, ""))] if table.notes else []
        shown.add_row(*map(Text, cells), *told)
    return shown


def _gpus(report: Report) -> str:
    gpus = ", ".join(report.machine.gpus)
    return gpus or "no GPU"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bar(console: "Console", trials: int, left: str) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    columns = (BarColumn(24), MofNCompleteColumn(), TextColumn("{task.fields[left]}", markup=False))
    return measuring_bar(console, trials, *columns, left=left)
