"""What a decode costs: measured, kept by batch width and context depth, refined by every real one.

Widths are not monotone in price (a batch of 8 can cost as much as one of 16), so this is a table and not a
line. A machine's speed moves as a whole, by a fifth within seconds where it is shared: that is told apart
from the shape of the table by one common `Level`, so that a slow minute makes no width look dear.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, log
from typing import Any

MAX_WIDTH = 65
"""Widest batch that is priced: the longest draft and the token before it."""

_FIRST_DEPTH = 512
_RISE = 0.15  # of the price of one token, for each one more, where nothing else is known
_COPIED = 0.5  # observations that a price from another depth counts as
_LEVEL_GAIN = 0.15
_ENTRY_GAIN = 0.05
_LARGEST_STEP = 0.7  # of the logarithm of a price: what is further off is mostly another program
_STALE = 0.35
_STALE_AFTER = 32


@dataclass(slots=True)
class Level:
    """How slow the machine is at the moment, relative to when the tables were measured."""

    value: float = 1.0


@dataclass(slots=True)
class _Shape:
    """Prices by width at one range of depths: `counts[w]` observations stand behind `seconds[w]`."""

    seconds: list[float] = field(default_factory=lambda: [0.0] * (MAX_WIDTH + 1))
    counts: list[float] = field(default_factory=lambda: [0.0] * (MAX_WIDTH + 1))

    def copy(self) -> "_Shape":
        """A guess at another depth."""
        return _Shape(list(self.seconds), [min(count, _COPIED) for count in self.counts])

    def scale(self, width: int, factor: float) -> None:
        """Change the price of a width, and with it those that are only copied from another depth."""
        for other, count in enumerate(self.counts):
            if other == width or 0.0 < count <= _COPIED:
                self.seconds[other] *= factor

    def fill(self) -> None:
        """Widths that were not observed lie on straight lines between those that were."""
        known = [width for width, count in enumerate(self.counts) if count]
        if not known:
            return
        for left, right in pairwise(known):
            self._line(left, right)
        seconds, first, last = self.seconds, known[0], known[-1]
        rise = (seconds[last] - seconds[first]) / (last - first) if last > first else _RISE * seconds[first]
        slope = max(0.0, rise)
        for width in range(last + 1, MAX_WIDTH + 1):
            seconds[width] = seconds[last] + slope * (width - last)
        for width in range(1, first):
            seconds[width] = seconds[first]

    def fill_beside(self, width: int) -> None:
        """The lines that end in this width; every round does this."""
        counts = self.counts
        left = next((other for other in range(width - 1, 0, -1) if counts[other]), None)
        right = next((other for other in range(width + 1, MAX_WIDTH + 1) if counts[other]), None)
        if (left is None and width > 1) or (right is None and width < MAX_WIDTH):
            self.fill()
            return
        if left is not None:
            self._line(left, width)
        if right is not None:
            self._line(width, right)

    def _line(self, left: int, right: int) -> None:
        seconds = self.seconds
        slope = (seconds[right] - seconds[left]) / (right - left)
        for width in range(left + 1, right):
            seconds[width] = seconds[left] + slope * (width - left)


class Curve:
    """Seconds of one decode by its width in tokens, for ranges of context depth that double in length."""

    def __init__(self, level: Level | None = None) -> None:
        self.level = level or Level()
        self._shapes: dict[int, _Shape] = {}
        self._misfit = 0.0
        self._observed = 0

    @property
    def known(self) -> bool:
        return bool(self._shapes)

    def measured(self, width: int) -> bool:
        """Whether this width itself was observed, at any depth."""
        return any(shape.counts[width] > _COPIED for shape in self._shapes.values())

    @property
    def fits(self) -> bool:
        """Whether what is observed is still near what the table says."""
        return self._observed < _STALE_AFTER or self._misfit < _STALE

    def prices(self, depth: int) -> list[float]:
        """Seconds by width, index 0 to MAX_WIDTH, at the level of the measurement. Not to be changed."""
        return self._shape(depth).seconds if self._shapes else [0.0] * (MAX_WIDTH + 1)

    def seconds(self, width: int, depth: int) -> float:
        """As things are now."""
        return self.prices(depth)[min(width, MAX_WIDTH)] * self.level.value

    def plain_seconds(self, depth: int) -> float:
        """Seconds of a batch of one token as things are now; 0 where none was measured."""
        shape = self._shape(depth) if self._shapes else None
        return shape.seconds[1] * self.level.value if shape and shape.counts[1] > _COPIED else 0.0

    def measure(self, width: int, depth: int, samples: Iterable[float]) -> None:
        """Enter the median of samples that were taken for this table, at one go.

        One token takes no longer than several: where it did, something else had the machine.
        """
        ordered = sorted(samples)
        shape = self._shapes.setdefault(_octave(depth), _Shape())
        shape.seconds[width] = ordered[len(ordered) // 2]
        shape.counts[width] = float(min(3, 1 + len(ordered)))
        if shape.counts[1]:
            pairs = zip(shape.seconds, shape.counts, strict=True)
            shape.seconds[1] = min(shape.seconds[1], *(price for price, count in pairs if count > _COPIED))
        shape.fill()

    def observe(self, width: int, depth: int, seconds: float) -> None:
        """Learn from a decode that really took place."""
        if not 0 < width <= MAX_WIDTH or seconds <= 0.0:
            return
        if not self._shapes:
            self.measure(width, depth, [seconds])
            return
        shape = self._shape(depth)
        error = log(seconds / (shape.seconds[width] * self.level.value))
        self._observed += 1
        self._misfit += (abs(error) - self._misfit) / min(self._observed, _STALE_AFTER)
        error = max(-_LARGEST_STEP, min(_LARGEST_STEP, error))
        count = shape.counts[width]
        gain = max(_ENTRY_GAIN, 1.0 / (count + 2.0))
        self.level.value *= exp(_LEVEL_GAIN * error)
        shape.scale(width, exp(gain * (1.0 - _LEVEL_GAIN) * error))
        shape.counts[width] = count + 1.0
        shape.fill_beside(width)

    def forget(self) -> None:
        """Nothing is known any more."""
        self._shapes, self._misfit, self._observed = {}, 0.0, 0
        self.level.value = 1.0

    def as_dict(self) -> dict[str, Any]:
        return {
            str(octave): {
                str(width): [shape.seconds[width] * self.level.value, count]
                for width, count in enumerate(shape.counts)
                if count
            }
            for octave, shape in self._shapes.items()
        }

    def restore(self, data: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
        """Take over what `as_dict` gave. Raises ValueError for anything else."""
        shapes: dict[int, _Shape] = {}
        for octave, entries in data.items():
            shape = shapes[int(octave)] = _Shape()
            for width, (seconds, count) in entries.items():
                if not (0 < int(width) <= MAX_WIDTH and 0.0 < seconds < 1e6 and count > 0.0):
                    raise ValueError("not a price")
                shape.seconds[int(width)], shape.counts[int(width)] = float(seconds), float(count)
            shape.fill()
        self._shapes = {octave: shape for octave, shape in shapes.items() if any(shape.counts)}

    def _shape(self, depth: int) -> _Shape:
        octave = _octave(depth)
        if octave not in self._shapes:
            nearest = min(self._shapes, key=lambda other: abs(other - octave))
            self._shapes[octave] = self._shapes[nearest].copy()
        return self._shapes[octave]


def _octave(depth: int) -> int:
    """0 up to 512 tokens, then one more for each doubling."""
    return (max(0, depth - 1) // _FIRST_DEPTH).bit_length()


class Prices:
    """The tables of a pair: `main` by width; `draft` where one row is wanted, `check` where all are."""

    def __init__(self) -> None:
        level = Level()
        self.main = Curve(level)
        self.draft = Curve(level)
        self.check = Curve(level)

    def forget(self) -> None:
        """Start anew; whoever holds a curve keeps it."""
        for curve in (self.main, self.draft, self.check):
            curve.forget()

    @property
    def fit(self) -> bool:
        """Whether all tables still say about what is observed."""
        return self.main.fits and self.draft.fits and self.check.fits
