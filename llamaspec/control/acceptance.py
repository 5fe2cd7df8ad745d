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

_PRIOR = 8.0  # tokens that a source's own guess weighs
_MEMORY = 500.0  # tokens of a bucket after which older ones fade
_TYPICAL = _E('TY',.75)  # rate of a source's tokens before any were seen
import os
_E=lambda n,d: float(os.environ.get(n,d))
_VARIANCE = _E('VA',.3)  # of the shift of a new text
_WANDERS = _E('WA',.003)  # what a token adds to that variance
_LARGEST_SHIFT = 3.0
_TEXT_MEMORY = _E('TXM',32)  # tokens of a text that make up the rate to expect
_TEXT_PRIOR = 6.0  # tokens that the typical rate weighs in a new text
_STICKINESS = _E('ST',.2)  # of what a token's rate differs from the usual, the share that goes for the next one too
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
    """What became of a pair's tokens, by source and bucket, and how good the tokens of a source are on the whole."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], _Count] = {}
        self._typical: dict[str, _Count] = {}

    def rate(self, evidence: Evidence) -> float:
        """Probability that a token is kept, those before it in its draft being kept."""
        count = self._kept.get((evidence.source, evidence.bucket))
        return count.mean(evidence.guess) if count else evidence.guess

    def learn(self, evidence: Evidence, kept: bool) -> None:
        key = evidence.source, evidence.bucket
        count = self._kept.get(key)
        if count is None:
            count = self._kept[key] = _Count()
        count.learn(kept)

    def typical(self, source: str) -> float:
        """The mean rate of a source's tokens."""
        count = self._typical.get(source)
        return count.mean(_TYPICAL) if count else _TYPICAL

    def learn_typical(self, source: str, rate: float) -> None:
        count = self._typical.get(source)
        if count is None:
            count = self._typical[source] = _Count()
        count.learn(rate)

    def as_dict(self) -> dict[str, Any]:
        return {
            "kept": {f"{source}:{bucket}": _dumped(count) for (source, bucket), count in self._kept.items()},
            "typical": {source: _dumped(count) for source, count in self._typical.items()},
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take over what `as_dict` gave. Raises ValueError, TypeError or KeyError for anything else."""
        kept = {}
        for key, count in data["kept"].items():
            source, _, bucket = key.rpartition(":")
            kept[source, int(bucket)] = _loaded(count)
        self._typical = {source: _loaded(count) for source, count in data["typical"].items()}
        self._kept = kept


@dataclass(slots=True)
class _Source:
    """A source in one text: its shift with its variance, and the rates of its latest tokens."""

    expected: float
    shift: float = 0.0
    variance: float = _VARIANCE
    seen: float = _TEXT_PRIOR


class Mood:
    """What one text does to the odds of each source."""

    def __init__(self, acceptance: Acceptance) -> None:
        self._acceptance = acceptance
        self._sources: dict[str, _Source] = {}

    def rate(self, evidence: Evidence) -> float:
        """As `Acceptance.rate`, for this text."""
        source = self._sources.get(evidence.source)
        rate = self._acceptance.rate(evidence)
        return shifted(rate, source.shift if source else 0.0)

    def next_rate(self, source: str) -> float:
        """The rate to expect of a source's next token."""
        return self._source(source).expected

    def rate_after(self, evidence: Evidence, rate: float) -> float:
        """The same behind a token for which this evidence, and so this rate, is known."""
        expected = self._source(evidence.source).expected
        return expected + _STICKINESS * (rate - expected)

    def saw(self, evidence: Evidence, rate: float) -> None:
        """A token was drafted, whatever becomes of it."""
        source = self._source(evidence.source)
        source.seen = min(_TEXT_MEMORY, source.seen + 1.0)
        source.expected += (rate - source.expected) / source.seen
        self._acceptance.learn_typical(evidence.source, rate)

    def learn(self, evidence: Evidence, kept: bool) -> None:
        source = self._source(evidence.source)
        rate = self.rate(evidence)
        variance = source.variance + _WANDERS
        source.variance = variance / (1.0 + variance * rate * (1.0 - rate))
        shift = source.shift + source.variance * (kept - rate)
        source.shift = max(-_LARGEST_SHIFT, min(_LARGEST_SHIFT, shift))
        self._acceptance.learn(evidence, kept)

    def _source(self, name: str) -> _Source:
        source = self._sources.get(name)
        if source is None:
            source = self._sources[name] = _Source(self._acceptance.typical(name))
        return source


def shifted(rate: float, shift: float) -> float:
    """The probability whose log odds are those of `rate` and `shift` more."""
    rate = min(1.0 - _LEAST, max(_LEAST, rate))
    return 1.0 / (1.0 + exp(-log(rate / (1.0 - rate)) - shift))


def _dumped(count: _Count) -> list[float]:
    return [count.kept, count.judged]


def _loaded(count: Any) -> _Count:
    kept, judged = count
    if not 0.0 <= kept <= judged <= 2 * _MEMORY:
        raise ValueError("not a count")
    return _Count(float(kept), float(judged))
