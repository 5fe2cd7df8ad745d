"""What the plots of a report draw and its tables print: worked out once, for both."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from statistics import median, quantiles

import numpy as np

from llamaspec.bench.report import Outcome, Report
from llamaspec.figures import Ratio
from llamaspec.settings import MAX_DRAFT

ALL = "all prompts"
_WINDOWS = 12


def compared(report: Report) -> list[Outcome]:
    """Those that have a speed relative to the baseline's."""
    return [outcome for outcome in report.outcomes if outcome.relative is not None]


def kinds(report: Report) -> tuple[str, ...]:
    """The kinds of the prompts for which any setting has a relative speed, in the work's order."""
    found = [
        kind for outcome in compared(report) for kind, ratio in outcome.relative_by_kind.items() if ratio
    ]
    return tuple(dict.fromkeys([kind for kind in report.work.kinds if kind in found] + found))


def relative_speeds(outcome: Outcome, kinds: Sequence[str]) -> dict[str, Ratio | None]:
    """Over all prompts (`ALL`), and of each kind."""
    return {ALL: outcome.relative, **{kind: outcome.relative_by_kind.get(kind) for kind in kinds}}


@dataclass(frozen=True, slots=True)
class Place:
    """The token at one position of a draft, counted from 1."""

    position: int
    drafted: int
    accepted: int

    @property
    def share(self) -> float:
        return min(1.0, self.accepted / self.drafted)

    @property
    def sure(self) -> bool:
        return self.drafted >= 10


def acceptance(outcome: Outcome) -> list[Place]:
    """By position in the draft; empty where nothing was drafted or nobody says where."""
    kept = outcome.accepted_at + (0,) * len(outcome.drafted_at)
    pairs = zip(outcome.drafted_at[:MAX_DRAFT], kept, strict=False)
    return [Place(i, drafted, accepted) for i, (drafted, accepted) in enumerate(pairs, 1) if drafted]


def accepted_per_round(outcome: Outcome) -> dict[int, float]:
    """Share of the rounds in which so many draft tokens were accepted; empty where nothing was drafted."""
    rounds = sum(outcome.accepted_lengths.values())
    if not rounds or not any(outcome.drafted_at):
        return {}
    lengths = sorted(outcome.accepted_lengths.items())[: MAX_DRAFT + 1]
    return {accepted: count / rounds for accepted, count in lengths}


@dataclass(frozen=True, slots=True)
class Window:
    """Speed in a stretch of time that ends at `end` seconds, in tokens per second: quartiles over answers."""

    end: float
    low: float
    middle: float
    high: float


def speed_over_time(report: Report) -> dict[str, list[Window]]:
    """By setting: how fast the answers were written from their first token on.

    Only while at least half of a setting's answers go on: those that are left are not like the others.
    Settings whose programs give no times of tokens are left out.
    """
    arrivals = {
        outcome.setting: [
            [time - times[0] for time in times]
            for trial in report.trials
            if (run := trial.runs.get(outcome.setting)) and len(times := sorted(run.times)) > 1
        ]
        for outcome in report.outcomes
    }
    ends = {name: median(answer[-1] for answer in answers) for name, answers in arrivals.items() if answers}
    length = _round_up(max(ends.values(), default=0.0) / _WINDOWS)
    if not length:
        return {}
    series = {}
    for name, last in ends.items():
        windows = [
            _window(arrivals[name], number * length, length) for number in range(int(last / length + 1e-9))
        ]
        if windows:
            series[name] = windows
    return series


def _window(answers: Sequence[Sequence[float]], start: float, length: float) -> Window:
    """Of the answers that go on until the end of the window, of which there is at least one."""
    end = start + length
    speeds = [
        (_written(answer, end) - _written(answer, start)) / length
        for answer in answers
        if answer[-1] >= end * (1 - 1e-9)
    ]
    low, middle, high = quantiles(speeds, n=4, method="inclusive") if len(speeds) > 1 else speeds * 3
    return Window(end, low, middle, high)


def _written(answer: Sequence[float], time: float) -> float:
    """Tokens behind the first by then. Those of a round arrive together: before, they are on their way."""
    arrivals, last = np.unique(answer, return_index=True)
    counts = np.append(last[1:], len(answer)) - 1
    return float(np.interp(time, arrivals, counts))


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten; 0 stays."""
    if value <= 0.0:
        return 0.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
