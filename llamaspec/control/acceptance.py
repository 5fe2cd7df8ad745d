"""How likely a draft token is kept: a source's own guess, corrected by what became of tokens like it.

What a pair does in general is counted by source and bucket, and remembered (`Acceptance`). What the text at
hand does (`Mood`) is a shift of those odds, one number for each source, that follows quickly: a source
that is overconfident in a translation is so in all its buckets. It is estimated as a Kalman filter would,
by the logistic model of one unknown that wanders.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Any

from llamaspec.decode.ports import Evidence

_PRIOR = 8.0  # tokens that a guess weighs
_MEMORY = 500.0  # tokens after which older ones fade
_TYPICAL = 0.75  # rate of a drafter's tokens before any were seen
_VARIANCE = 0.5  # of the shift of a new text
_WANDERS = 0.005  # what a token adds to it
_LARGEST_SHIFT = 3.0
_LEAST = 1e-3


@dataclass(slots=True)
class _Count:
    kept: float = 0.0
    judged: float = 0.0

    def learn(self, kept: float) -> None:
        if self.judged >= _MEMORY:
            self.kept *= 1.0 - 1.0 / _MEMORY
            self.judged *= 1.0 - 1.0 / _MEMORY
        self.kept += kept
        self.judged += 1.0

    def mean(self, prior: float) -> float:
        return (self.kept + _PRIOR * prior) / (self.judged + _PRIOR)


class Acceptance:
    """What became of a pair's tokens, by source and bucket; and how good a drafter's are on the whole."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], _Count] = {}
        self._typical: dict[str, _Count] = {}

    def rate(self, evidence: Evidence) -> float:
        """Probability that a token is kept, those before it in its draft being kept."""
        count = self._kept.get((evidence.source, evidence.bucket))
        return count.mean(evidence.guess) if count else evidence.guess

    def learn(self, evidence: Evidence, kept: bool) -> None:
        """What became of a token that those before it in its draft led to."""
        key = evidence.source, evidence.bucket
        count = self._kept.get(key)
        if count is None:
            count = self._kept[key] = _Count()
        count.learn(kept)

    def typical(self, drafter: str) -> float:
        """The mean rate of the tokens that a drafter comes up with."""
        count = self._typical.get(drafter)
        return count.mean(_TYPICAL) if count else _TYPICAL

    def learn_typical(self, drafter: str, rate: float) -> None:
        count = self._typical.get(drafter)
        if count is None:
            count = self._typical[drafter] = _Count()
        count.learn(rate)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kept": {f"{source}:{bucket}": _dumped(count) for (source, bucket), count in self._kept.items()},
            "typical": {drafter: _dumped(count) for drafter, count in self._typical.items()},
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take over what `as_dict` gave. Raises ValueError, TypeError, KeyError or AttributeError else."""
        kept = {}
        for key, count in data["kept"].items():
            source, _, bucket = key.rpartition(":")
            kept[source, int(bucket)] = _loaded(count)
        self._typical = {drafter: _loaded(count) for drafter, count in data["typical"].items()}
        self._kept = kept


@dataclass(slots=True)
class _Shift:
    value: float = 0.0
    variance: float = _VARIANCE


class Mood:
    """What one text does to the odds of each source."""

    def __init__(self, acceptance: Acceptance) -> None:
        self._acceptance = acceptance
        self._shifts: dict[str, _Shift] = {}

    def rate(self, evidence: Evidence) -> float:
        """As `Acceptance.rate`, for this text."""
        rate = self._acceptance.rate(evidence)
        shift = self._shifts.get(evidence.source)
        return shifted(rate, shift.value) if shift else rate

    def learn(self, evidence: Evidence, kept: bool) -> None:
        """As `Acceptance.learn`, which is told too."""
        rate = self.rate(evidence)
        shift = self._shifts.get(evidence.source)
        if shift is None:
            shift = self._shifts[evidence.source] = _Shift()
        variance = shift.variance + _WANDERS
        shift.variance = variance / (1.0 + variance * rate * (1.0 - rate))
        value = shift.value + shift.variance * (kept - rate)
        shift.value = max(-_LARGEST_SHIFT, min(_LARGEST_SHIFT, value))
        self._acceptance.learn(evidence, kept)


def shifted(rate: float, shift: float) -> float:
    """The probability whose log odds are those of `rate` and `shift` more."""
    rate = min(1.0 - _LEAST, max(_LEAST, rate))
    return 1.0 / (1.0 + exp(-log(rate / (1.0 - rate)) - shift))


def _dumped(count: _Count) -> list[float]:
    return [count.kept, count.judged]


def _loaded(data: Any) -> _Count:
    kept, judged = data
    if not 0.0 <= kept <= judged <= 2 * _MEMORY:
        raise ValueError("not a count")
    return _Count(float(kept), float(judged))
