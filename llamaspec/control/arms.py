"""What a drafter that evaluates a model gains in a text.

That is not known before it has drafted there, so it is an arm of a bandit. Its gain is a distribution that
narrows as the arm is played and widens while it is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from random import Random

_MEMORY = 32.0  # rounds after which older ones fade
_PRIOR = 4.0  # rounds that weigh as much as what the rate of the tokens promises
_PRIOR_SQUARE = 1.0
_LEAST_SPREAD = 0.25
_ABSENCE = 48.0  # rounds without the arm after which half of it is forgotten, at first
_TOKEN_MEMORY = 32.0
_TOKEN_PRIOR = 3.0  # tokens that a pair's typical rate weighs in a new text
_STICKINESS = 0.2  # of what a token's rate differs from the usual, the share that goes for the next one too


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

    def add(self, tokens: float, cost: float, rate: float) -> None:
        """A round more; older ones fade where there are many."""
        off = tokens - rate * cost - self.gain(rate)
        if self.rounds >= _MEMORY:
            self.fade(1.0 - 1.0 / _MEMORY)
        self.rounds += 1.0
        self.tokens += tokens
        self.cost += cost
        self.squares += off * off

    def fade(self, factor: float) -> None:
        self.rounds *= factor
        self.tokens *= factor
        self.cost *= factor
        self.squares *= factor


class Arm:
    """A drafter in one text: its rounds, and how good its tokens are (`kept`, the rate to expect)."""

    def __init__(self, typical: float) -> None:
        """`typical`: the rate of its tokens in other texts."""
        self.kept = typical
        self._seen = _TOKEN_PRIOR
        self._rounds = Tally()
        self._absent = 0.0
        self._luck: float | None = None

    def estimate(self, costs: Sequence[float], step: float, rate: float) -> Tally:
        """Its rounds, and what it promises here: `costs` as in `policy`, a `step` for each drafted token."""
        tokens, cost = _promised(self.kept, costs, step, rate)
        rounds = self._rounds
        return Tally(
            rounds.rounds + _PRIOR,
            rounds.tokens + _PRIOR * tokens,
            rounds.cost + _PRIOR * cost,
            rounds.squares + _PRIOR * _PRIOR_SQUARE,
        )

    def luck(self, random: Random) -> float:
        """By how many errors the gain is taken to be above its mean, which is never below (May et al. 2012).

        It is drawn anew only after a round without the arm: to leave and to come back has a price.
        """
        if self._luck is None:
            self._luck = max(0.0, random.gauss(0.0, 1.0))
        return self._luck

    def rate_after(self, rate: float) -> float:
        """The rate to expect of a token behind one of this rate."""
        return self.kept + _STICKINESS * (rate - self.kept)

    @property
    def new(self) -> bool:
        """Whether few of its tokens were seen in this text."""
        return self._seen < _TOKEN_MEMORY

    def saw(self, rate: float) -> None:
        """A token was drafted, whatever becomes of it."""
        self._seen = min(_TOKEN_MEMORY, self._seen + 1.0)
        self.kept += (rate - self.kept) / self._seen

    def played(self, tokens: float, cost: float, rate: float) -> None:
        self._rounds.add(tokens, cost, rate)
        self._absent /= 2.0

    def passed(self, typical: float) -> None:
        """A round without it. The longer it has been away, the less a round more makes it forgotten."""
        self._luck = None
        self._absent += 1.0
        share = 1.0 / (_ABSENCE + self._absent)
        self._rounds.fade(1.0 - share)
        self.kept += share * (typical - self.kept)


def _promised(kept: float, costs: Sequence[float], step: float, rate: float) -> tuple[float, float]:
    """Tokens, and cost, beyond the plain round's of the best draft whose tokens are all kept at one rate."""
    best, most = (kept, costs[1] - 1.0 + step), float("-inf")
    tokens, survives, drafting = 0.0, 1.0, -1.0
    for cost in costs[1:]:
        survives *= kept
        tokens += survives
        drafting += step
        gain = tokens - rate * (cost + drafting)
        if gain > most:
            best, most = (tokens, cost + drafting), gain
    return best
