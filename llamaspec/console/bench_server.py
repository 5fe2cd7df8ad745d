"""The benchmark of a server on the terminal: progress, a row for each number of clients, findings."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from llamaspec.bench.remote_report import Level, ServerReport
from llamaspec.bench.report import Latency
from llamaspec.bench.sentences import percent, relative
from llamaspec.bench.tables import NOTHING, TOO_NOISY, Table
from llamaspec.console.bench import print_findings, print_table
from llamaspec.console.progress import measuring_bar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_COUNTED = {
    "usage": "by the server's usage",
    "timings": "by the server's timings",
    "pieces": "as pieces of text: the server does not say how many there are",
}


class ServerProgress:
    """What `measure_server` tells of: a bar on a terminal, else a line for each level; on standard error.

    A context manager; `quiet` asks for nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._bar: Progress | None = None
        self._level = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, what: str) -> None:
        if self._quiet:
            return
        if self._console.is_terminal:
            if self._bar is None:
                self._bar = _started_bar(self._console, total)
            self._bar.update(self._bar.task_ids[0], completed=done, description=what)
        elif what != self._level:
            self._console.print(f"{what}: request {done} of {total}", markup=False)
        self._level = what


def print_server_report(report: ServerReport) -> None:
    """On standard output."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print()
    server = f" ({report.server})" if report.server else ""
    console.print(f"{report.model} at {report.url}{server}", style="bold", markup=False)
    work = report.work
    rounds = "once" if work.repeat == 1 else f"{work.repeat} times"
    asked = f"{work.name}: {work.prompts} prompts, {rounds}, at most {work.n_predict} tokens each"
    console.print(asked, style="dim", markup=False)
    console.print()
    print_table(level_table(report), _notes(report))
    for level in report.levels:
        for failure in level.failures:
            for message in failure.messages:
                console.print(f"failed: {failure.kind} ({failure.count}): {message}", markup=False)
    print_findings(report.findings, console)


def level_table(report: ServerReport) -> Table:
    """Speeds in tokens per second, times in seconds and milliseconds, percentiles 50, 95 and, of gaps, 99."""
    first = report.levels[0].clients if report.levels else 1
    columns = {
        "tokens/s": [str(level.throughput or NOTHING) for level in report.levels],
        f"times {first}": [relative(level.relative) for level in report.levels],
        "each stream": [str(level.stream_speed or NOTHING) for level in report.levels],
        "first token": [_percentiles(level.first_token, 1, "s", "p50", "p95") for level in report.levels],
        "gaps": [_percentiles(level.gap, 1000, "ms", "p50", "p95", "p99") for level in report.levels],
        "tokens/piece": [_number(level.tokens_per_piece) for level in report.levels],
        "accepted": [_share(level.acceptance_rate) for level in report.levels],
        "failed": [f"{level.failed} of {level.requests}" for level in report.levels],
    }
    names = [str(level.clients) for level in report.levels]
    verdicts = {
        row: level.relative.verdict if report.conclusive else TOO_NOISY
        for row, level in enumerate(report.levels)
        if level.relative
    }
    return Table(["clients", *columns], list(zip(names, *columns.values(), strict=True)), verdicts)


def _notes(report: ServerReport) -> Iterator[str]:
    yield "Tokens/s is all tokens by the time of a round; a gap is the time between two pieces of text."
    if report.counted_by:
        yield f"Tokens are counted {' and '.join(_COUNTED[who] for who in report.counted_by)}."
    yield from report.notes
    if cached := _cached(report.levels):
        yield cached


def _cached(levels: tuple[Level, ...]) -> str | None:
    """How much of the prompts the server already knew, where it says so."""
    cached = sum(level.cached_tokens or 0 for level in levels)
    every = sum(level.prompt_tokens or 0 for level in levels)
    return f"Of the prompts' {every} tokens {cached} came from a cache." if cached and every else None


def _percentiles(latency: Latency | None, factor: int, unit: str, *names: str) -> str:
    if latency is None:
        return NOTHING
    digits = 2 if factor == 1 else 0
    return " / ".join(f"{factor * getattr(latency, name):.{digits}f}" for name in names) + f" {unit}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return NOTHING if value is None else percent(value)


def _started_bar(console: "Console", total: int) -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    what, left = TextColumn("{task.description}", markup=False), TimeRemainingColumn(compact=True)
    return measuring_bar(console, total, what, BarColumn(24), MofNCompleteColumn(), left)
