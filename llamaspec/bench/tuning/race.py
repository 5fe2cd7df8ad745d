"""One prompt answered by several candidates at the same time, and what such heats come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llamaspec.bench.tuning.candidates import Candidate, Goal
from llamaspec.bench.workload import Prompt
from llamaspec.figures import Ratio, ratio


@dataclass(frozen=True, slots=True)
class Sample:
    """Tokens per second of one answer; None where it ended at once."""

    writing: float | None
    reading: float | None


@dataclass(frozen=True, slots=True)
class Heat:
    """What each candidate, by key, came to, or why it could not take part. `seconds`: of the whole."""

    samples: Mapping[str, Sample]
    failed: Mapping[str, str]
    seconds: float


class Race(Protocol):
    """Where candidates race. `capacity` are those that can be loaded side by side, `spent` the seconds that
    all heats of the search have taken so far."""

    @property
    def capacity(self) -> int: ...
    @property
    def spent(self) -> float: ...
    def __call__(self, field: Sequence[Candidate], prompt: Prompt, n_predict: int) -> Heat: ...


@dataclass(frozen=True, slots=True)
class State:
    """Where a measurement is: `spent` of `total` seconds."""

    stage: str
    doing: str
    spent: float
    total: float


@dataclass(slots=True)
class Tally:
    """Paired ratios to one candidate, by key of the other and by prompt; and why others failed."""

    against: Candidate
    writing: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    reading: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, prompt: Prompt, heat: Heat) -> None:
        self.failed.update(heat.failed)
        base = heat.samples.get(self.against.key)
        if base is None:
            return
        for key, sample in heat.samples.items():
            if key == self.against.key:
                continue
            if sample.writing and base.writing:
                prompts = self.writing.setdefault(key, {})
                prompts.setdefault(prompt.name, []).append(sample.writing / base.writing)
            if sample.reading and base.reading:
                prompts = self.reading.setdefault(key, {})
                prompts.setdefault(prompt.name, []).append(sample.reading / base.reading)

    def ratio(self, candidate: Candidate, goal: Goal = "writing") -> Ratio | None:
        """How many times as fast as `against`; None where nothing was timed."""
        samples = self.writing if goal == "writing" else self.reading
        return ratio(samples.get(candidate.key, {}))


class Pace:
    """Whether there is time for another heat, judged by what a lane of the last heats took."""

    def __init__(self, race: Race) -> None:
        self._race = race
        self._lanes: list[float] = []

    def allows(self, lanes: int, until: float) -> bool:
        """Whether a heat of so many lanes is likely to end before `until`, in seconds that are spent."""
        recent = sorted(self._lanes[-5:])
        expected = recent[len(recent) // 2] * lanes if recent else 0.0
        return self._race.spent + expected < until

    def heat(self, field: Sequence[Candidate], prompt: Prompt, n_predict: int) -> Heat:
        heat = self._race(field, prompt, n_predict)
        self._lanes.append(heat.seconds / len(field))
        return heat
