"""What a drafter that evaluates a model gains: not known before it has drafted, so it is an arm of a bandit.

Its gain is a distribution that narrows as it is played and widens while it is not; one sample of it competes with
what else could be done (Thompson 1933).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from math import isfinite, sqrt
from operator import mul

from llamaspec.control.policy import best_width

import os
_E=lambda n,d: float(os.environ.get(n,d))
_TEXT_MEMORY = _E('TM',32)  # rounds of a text after which older ones fade
_PAIR_MEMORY = 400.0
_PRIOR = _E('PR',4)  # rounds that the pair's experience weighs in a new text
_ABSENCE = _E('AB',48)  # rounds without being played after which half is forgotten
_LEAST_SPREAD = _E('LS',.25)


@dataclass(slots=True)
class Tally:
    """Rounds of an arm: tokens beyond the plain one, and cost beyond a plain round's, in such rounds.

    `squares` are of what each round's gain differed from the mean.
    """

    rounds: float = 0.0
    tokens: float = 0.0
    cost: float = 0.0
    squares: float = 0.0

    def gain(self, rate: float) -> float:
        """Mean tokens gained by a round, where a plain round's time is worth `rate` tokens."""
        return (self.tokens - rate * self.cost) / self.rounds if self.rounds else 0.0

    def error(self) -> float:
        """Standard error of `gain`. There are rounds."""
        return sqrt(max(_LEAST_SPREAD, self.squares / self.rounds) / self.rounds)

    def add(self, tokens: float, cost: float, rate: float, memory: float) -> None:
        """A round more; older ones fade when there are `memory` of them."""
        off = tokens - rate * cost - self.gain(rate)
        if self.rounds >= memory:
            self.fade(1.0 - 1.0 / memory)
        self.rounds += 1.0
        self.tokens += tokens
        self.cost += cost
        self.squares += off * off

    def fade(self, factor: float) -> None:
        self.rounds *= factor
        self.tokens *= factor
        self.cost *= factor
        self.squares *= factor

    def with_prior(self, prior: "Tally", weight: float) -> "Tally":
        """This experience with `weight` rounds of a prior one, which has some."""
        share = weight / prior.rounds
        return Tally(
            self.rounds + weight,
            self.tokens + share * prior.tokens,
            self.cost + share * prior.cost,
            self.squares + share * prior.squares,
        )

    def as_list(self) -> list[float]:
        return [self.rounds, self.tokens, self.cost, self.squares]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Tally":
        """From `as_list`. Raises ValueError or TypeError for anything else."""
        tally = cls(*map(float, values))
        if not (all(map(isfinite, tally.as_list())) and tally.rounds > 0.0 and tally.squares >= 0.0):
            raise ValueError("not a tally")
        return tally


def promised(rate: float, costs: Sequence[float], step: float) -> Tally:
    """What an arm is expected to gain before it was ever played: its best draft if tokens are kept at `rate`."""
    survival = list(accumulate(repeat(rate, len(costs) - 1), mul))
    drafted = [cost + width * step for width, cost in enumerate(costs)]
    width = max(1, best_width(survival, drafted, 1.0)[0])
    tokens, cost = sum(survival[:width]), drafted[width] - 1.0
    return Tally(_PRIOR, _PRIOR * tokens, _PRIOR * cost, _PRIOR)


class Arm:
    """A drafter's experience in one text, on top of the pair's."""

    def __init__(self) -> None:
        self._text = Tally()
        self._absent = 0.0

    def estimate(self, pair: Tally) -> Tally:
        return self._text.with_prior(pair, _PRIOR)

    def played(self, tokens: float, cost: float, rate: float, pair: Tally) -> None:
        self._text.add(tokens, cost, rate, _TEXT_MEMORY)
        pair.add(tokens, cost, rate, _PAIR_MEMORY)
        self._absent /= 2.0  # who failed again is forgotten more slowly than who was left once

    def passed(self) -> None:
        """A round without it: what it did longer ago than it was away is held to be as it was."""
        self._absent += 1.0
        self._text.fade(1.0 - 1.0 / (_ABSENCE + self._absent))
