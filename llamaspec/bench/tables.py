"""The figures of a report as tables of text, for a page and for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamaspec.bench.report import Latency, Outcome, Report
from llamaspec.bench.sentences import OWN, percent, relative
from llamaspec.bench.series import (
    acceptance,
    accepted_per_round,
    compared,
    kinds,
    relative_speeds,
    speed_over_time,
)
from llamaspec.figures import Figure

NOTHING = "–"
TOO_NOISY = "too noisy"
"""The verdict where a machine was: whatever the figures say."""
MOST_DIFFERENCES = 20


@dataclass(frozen=True, slots=True)
class Table:
    """`header` names the columns; the first cell of a row names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Mapping[int, str] = field(default_factory=dict)
    """A row's verdict, by its index."""


def speeds(report: Report) -> Table:
    """A row for each setting: how fast, how surely, and whether the text is the same."""
    columns = {
        "tokens/s": [_figure(outcome.speed) for outcome in report.outcomes],
        f"times {report.baseline}": [relative(outcome.relative) for outcome in report.outcomes],
        "worst prompt": [
            f"{outcome.worst[1]:.2f}× ({outcome.worst[0]})" if outcome.worst else NOTHING
            for outcome in report.outcomes
        ],
        "accepted": [_share(outcome.acceptance_rate) for outcome in report.outcomes],
        "same text": [_same_text(outcome) for outcome in report.outcomes],
    }
    verdicts = {
        row: outcome.relative.verdict if report.conclusive else TOO_NOISY
        for row, outcome in enumerate(report.outcomes)
        if outcome.relative
    }
    return Table(*_by_setting(report, columns), verdicts)


def costs(report: Report) -> Table:
    """A row for each setting: what is waited for, and what it takes of the machine."""
    columns = {
        "first token": [_figure(outcome.time_to_first_token, " s") for outcome in report.outcomes],
        "next token": [_milliseconds(outcome.latency, "p50") for outcome in report.outcomes],
        "95 % within": [_milliseconds(outcome.latency, "p95") for outcome in report.outcomes],
        "99 % within": [_milliseconds(outcome.latency, "p99") for outcome in report.outcomes],
        "energy": [_figure(outcome.joules_per_token, " J/token") for outcome in report.outcomes],
        "memory": [
            NOTHING if outcome.peak_memory is None else size(outcome.peak_memory)
            for outcome in report.outcomes
        ],
    }
    return Table(*_by_setting(report, columns))


def overview(report: Report) -> Table:
    """`speeds` and `costs` beside each other."""
    left, right = speeds(report), costs(report)
    rows = [(*ours, *theirs[1:]) for ours, theirs in zip(left.rows, right.rows, strict=True)]
    return Table((*left.header, *right.header[1:]), rows, left.notes)


def speedup_by_kind(report: Report) -> Table:
    columns = {
        outcome.setting: {name: relative(r) for name, r in relative_speeds(outcome, kinds(report)).items()}
        for outcome in compared(report)
    }
    return _by_row("kind", columns)


def acceptance_by_position(report: Report) -> Table:
    columns = {
        outcome.setting: {
            place.position: f"{percent(place.share)} ({place.accepted} of {place.drafted})"
            for place in acceptance(outcome)
        }
        for outcome in report.outcomes
    }
    return _by_row("position", columns)


def accepted_rounds(report: Report) -> Table:
    columns = {
        outcome.setting: {n: percent(share, 1) for n, share in accepted_per_round(outcome).items()}
        for outcome in report.outcomes
    }
    return _by_row("accepted", columns)


def speed_in_time(report: Report) -> Table:
    columns = {
        setting: {
            window.end: f"{window.middle:.1f} ({window.low:.1f} to {window.high:.1f})" for window in windows
        }
        for setting, windows in speed_over_time(report).items()
    }
    return _by_row("up to second", columns)


def price_by_width(report: Report) -> Table:
    prices = report.prices.main_seconds if report.prices else {}
    one = prices.get(1)
    rows = [
        (
            str(width),
            f"{1000 * seconds:.1f} ms",
            f"{1000 * seconds / width:.1f} ms" if width else NOTHING,
            f"{seconds / one:.2f}×" if one else NOTHING,
        )
        for width, seconds in sorted(prices.items())
    ]
    if report.prices and (draft := report.prices.draft_step_seconds) is not None:
        rows.append(
            ("a draft token", f"{1000 * draft:.1f} ms", NOTHING, f"{draft / one:.2f}×" if one else NOTHING)
        )
    return Table(("tokens in one decode", "time", "per token", "times one token"), rows)


def latency(report: Report) -> Table:
    header = {
        "median": "p50",
        "95th percentile": "p95",
        "99th percentile": "p99",
        "lowest": "low",
        "first quartile": "first_quartile",
        "third quartile": "third_quartile",
        "highest": "high",
    }
    rows = [
        (outcome.setting, *(_milliseconds(outcome.latency, name) for name in header.values()))
        for outcome in report.outcomes
        if outcome.latency
    ]
    return Table(("setting", *header), rows)


def differences(report: Report) -> Table:
    """Of each setting the first few answers that part from the baseline's."""
    rows = [
        (
            outcome.setting,
            difference.prompt,
            str(difference.position),
            NOTHING if difference.logit_gap is None else f"{difference.logit_gap:.4g}",
        )
        for outcome in report.outcomes
        for difference in outcome.differences[:MOST_DIFFERENCES]
    ]
    return Table(("setting", "prompt", "at token", "gap in logits"), rows)


def settings_in_effect(report: Report) -> Table:
    """A row for each value that took effect, but for those that tell of the machine's files or of prompts."""
    columns = {
        outcome.setting: dict(_values(outcome.chosen)) for outcome in report.outcomes if outcome.chosen
    }
    return _by_row("key", columns)


def size(count: int) -> str:
    """`count` bytes in GiB, or MiB where it is less than one."""
    gib = count / (1 << 30)
    return f"{gib:.2f} GiB" if gib >= 1 else f"{1024 * gib:.0f} MiB"


_PRIVATE = ("corpus", "system", "template")


def _values(chosen: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in chosen.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{prefix}{key}.")
        elif key not in _PRIVATE and value not in (None, [], ()):
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield prefix + key, shown


def _by_setting(
    report: Report, columns: Mapping[str, Sequence[str]]
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Header and rows; columns in which nobody has anything are left out."""
    told = {name: cells for name, cells in columns.items() if set(cells) != {NOTHING}}
    names = [_named(outcome) for outcome in report.outcomes]
    return ("setting", *told), tuple(zip(names, *told.values(), strict=True))


def _by_row(name: str, columns: Mapping[str, Mapping[Any, str]]) -> Table:
    """A column for each setting that has a cell, a row for each of their keys: sorted if they are numbers."""
    told = {setting: cells for setting, cells in columns.items() if cells}
    keys = list(dict.fromkeys(key for cells in told.values() for key in cells))
    if all(isinstance(key, int | float) for key in keys):
        keys.sort()
    rows = [
        (f"{key:g}" if isinstance(key, float) else str(key), *(c.get(key, NOTHING) for c in told.values()))
        for key in keys
    ]
    return Table((name, *told), rows)


def _named(outcome: Outcome) -> str:
    own = outcome.program in (OWN, outcome.setting)
    return outcome.setting if own else f"{outcome.setting} ({outcome.program})"


def _same_text(outcome: Outcome) -> str:
    checked = outcome.same_text + len(outcome.differences)
    return f"{outcome.same_text} of {checked}" if checked else NOTHING


def _figure(figure: Figure | None, unit: str = "") -> str:
    return NOTHING if figure is None else f"{figure}{unit}"


def _share(share: float | None) -> str:
    return NOTHING if share is None else percent(share)


def _milliseconds(latency: Latency | None, name: str) -> str:
    if latency is None:
        return NOTHING
    milliseconds = 1000 * getattr(latency, name)
    return f"{milliseconds:.{0 if milliseconds >= 10 else 1}f} ms"
