"""The best that can be done in the world of `simulation`, by one who knows its laws."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import log

import numpy as np
from numpy.typing import NDArray
from simulation import LIMIT, STAGES, Floats, Kind, Machine, Run, Text, reading, steady

from llamaspec.control.policy import best_width, round_costs

_AGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_FINENESS = 5
_SURVIVALS = np.exp(np.arange(-24, 1) / _FINENESS)
_NONE, _MODEL = 0, -1  # else the width of an n-gram draft
_RATES, _SWEEPS, _PRACTICE = 3, 8, 2500


class Oracle:
    """What to do about one kind of text on one machine.

    It knows the true prices, acceptances and transitions; the draft model's confidence in a token it sees
    only once it has paid for it, and what becomes of a token only once it is verified. What it knows at the
    start of a round is then the level of confidence that was seen last, how many tokens ago that was (so many
    the draft model has not read), and the stage of the match. Over these states the most tokens per second
    in the long run are found by value iteration for the gain of tokens - rate * seconds, where the rate is
    what the policy so found reaches itself on a long text (Dinkelbach 1967). Within a round a draft of the
    model is an optimal stopping problem, over its length, its last level, and the probability that all before
    it are kept. A round is followed by the value of where it leads, so that a choice that leaves the model
    behind, or tells nothing of what comes, is charged with that.

    It is the optimum but for what hardly weighs: survival is a grid of values and so are the ages (what is in
    between is interpolated, which for a convex function errs upwards); the rate carries the noise of a text,
    which tells in the second order alone; and plans never count on cutting more than the last drafted token,
    though the cut itself is the best one. So who knows less is not markedly faster for long. Where kinds of
    text alternate, by the token and not by the hour, the best for each of them is the best for all.
    """

    def __init__(self, machine: Machine, kind: Kind, drafters: Sequence[str]) -> None:
        self._machine = machine
        self._uses_model, self._uses_ngram = "model" in drafters, "ngram" in drafters
        self._kept, self._right = kind.kept, kind.rights
        # A plan is not to rely on prices that fall with the width, as it can't cut a draft back by much.
        self._prices = np.array([0.0, *np.minimum.accumulate(machine.main[:0:-1])[::-1]])
        self._costs = round_costs(machine.main, LIMIT)
        self._reading = np.array([reading(machine, age) for age in _AGES])
        self._seen = np.array([np.linalg.matrix_power(kind.chain, age) for age in _AGES])
        self._fresh = kind.fresh_stages
        stages = np.outer(1.0 - self._right, self._fresh)
        for stage in range(STAGES + 1):
            stages[stage, min(stage + 1, STAGES)] += self._right[stage]
        self._stages = [np.linalg.matrix_power(stages, tokens) for tokens in range(LIMIT + 2)]
        self._later = [_later(tokens) for tokens in range(LIMIT + 2)]
        self._below = _places(self._kept[:, None] * _SURVIVALS, _SURVIVALS)
        self._goes_on: list[NDArray[np.bool_]] = []
        self._goes_on_table: list[list[list[list[bool]]]] = []
        self._choice: list[list[list[int]]] = []
        self.rate = 1.0 / machine.main[1]
        self._solve(Text(steady(kind), _PRACTICE, seed=0))

    def choose(self, level: int, age: int, stage: int) -> int:
        """The width of an n-gram draft, 0 for no draft, -1 for the model's."""
        return self._choice[level][min(bisect_left(_AGES, age), len(_AGES) - 1)][stage]

    def draft(self, text: Text, position: int, unread: int) -> tuple[int, int, float]:
        """Ask the model: tokens drafted, how many of them are worth verifying, seconds of drafting."""
        spent = reading(self._machine, unread)
        before, survival = 1.0, []
        for length in range(1, LIMIT + 1):
            level = text.levels[position + length - 1]
            survival.append(before * self._kept[level])
            nearest = round(_FINENESS * log(max(before, _SURVIVALS[0]))) - 1
            if length == LIMIT or not self._goes_on_table[length - 1][level][nearest][text.stages[position]]:
                break
            before = survival[-1]
            spent += self._machine.draft[1]
        width, _ = best_width(survival, self._costs, self.rate * self._machine.main[1])
        return len(survival), width, spent

    def _solve(self, practice: Text) -> None:
        values = np.zeros((len(self._kept), len(_AGES), STAGES + 1))
        for _ in range(_RATES):
            for _ in range(_SWEEPS):
                new = np.max([gain for _, gain in self._choices(values)], axis=0)
                values = new - new[-1, 0, 0]
            choices = self._choices(values)
            names = np.array([name for name, _ in choices])
            self._choice = names[np.argmax([gain for _, gain in choices], axis=0)].tolist()
            self._goes_on_table = [goes_on.tolist() for goes_on in self._goes_on]
            run = _play(practice, self._machine, lambda _: self, _PRACTICE)
            self.rate = max(self.rate, run.ends[-1] / run.seconds[-1])

    def _choices(self, values: Floats) -> list[tuple[int, Floats]]:
        """For each choice and state the tokens, less what their time is worth, and what follows them.

        Values and results have the shape [level, age, stage].
        """
        next_values = values @ self._stages[1].T
        choices = [(_NONE, 1.0 - self.rate * self._prices[1] + self._after(1, next_values))]
        if self._uses_ngram:
            choices += enumerate(self._offers(values @ self._fresh, next_values), 1)
        if self._uses_model:
            first = np.einsum("ayx,xs->yas", self._seen, self._drafting(values))
            choices.append((_MODEL, 1.0 - self.rate * self._reading[:, None] + first))
        return choices

    def _after(self, tokens: int, values: Floats) -> Floats:
        place, share = self._later[tokens]
        share = share.reshape(1, -1, *[1] * (values.ndim - 2))
        later: Floats = (1.0 - share) * values[:, place] + share * values[:, place + 1]
        return later

    def _offers(self, lost: Floats, next_values: Floats) -> Floats:
        """The gain of an n-gram draft by its width from 1, as an axis before those of the values."""
        losts = [self._after(tokens, lost) for tokens in range(LIMIT + 2)]
        behind = [self._after(tokens, next_values) for tokens in range(LIMIT + 2)]
        offers = np.full((LIMIT, *next_values.shape), -np.inf)
        for stage in range(1, STAGES + 1):
            survives, refused = 1.0, 0.0
            for width in range(1, LIMIT + 1):
                right = self._right[min(stage + width - 1, STAGES)]
                refused = refused + survives * (1.0 - right) * (width + losts[width])
                survives *= right
                whole = width + 1 + behind[width + 1][:, :, min(stage + width, STAGES)]
                gain = refused + survives * whole - self.rate * self._prices[width + 1]
                offers[width - 1, :, :, stage] = gain
        return offers

    def _drafting(self, values: Floats) -> Floats:
        """What a draft is worth once its first token's level is seen, shape [level, stage].

        Its length is counted down; by the last token's level, the survival of those before it, and the stage.
        """
        kept, rate, prices = self._kept[:, None], self.rate, self._prices
        survives = _SURVIVALS[None, :, None]
        levels = np.arange(len(self._kept))[:, None]
        below, share = self._below[0], self._below[1][:, :, None]
        self._goes_on = []
        worth: Floats | None = None
        for length in range(LIMIT, 0, -1):
            refused = (values[:, 0] @ self._stages[length].T)[:, None, :]
            whole = (values[:, 1] @ self._stages[length + 1].T)[:, None, :]
            here = (1.0 - kept)[:, None] * refused
            stop = survives * (here + kept[:, None] * (1.0 + whole)) - rate * prices[length + 1]
            stop = np.maximum(stop, survives * refused - rate * prices[length])
            if worth is None:
                worth = stop
                continue
            ahead = np.einsum("xy,yus->xus", self._seen[0], worth)
            ahead = (1.0 - share) * ahead[levels, below] + share * ahead[levels, below + 1]
            more = survives * (here + kept[:, None]) - rate * self._machine.draft[1] + ahead
            self._goes_on.insert(0, more > stop)
            worth = np.maximum(more, stop)
        assert worth is not None
        return worth[:, -1]


def _places(values: Floats, grid: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Where values lie between those of a rising grid: the place below, and the share of the one above."""
    values = np.clip(values, grid[0], grid[-1])
    place = np.minimum(np.searchsorted(grid, values, side="right") - 1, len(grid) - 2)
    return place, (values - grid[place]) / (grid[place + 1] - grid[place])


def _later(tokens: int) -> tuple[NDArray[np.int64], Floats]:
    """Where in `_AGES` each of them is some tokens later."""
    ages = np.array(_AGES, float)
    return _places(ages + tokens, ages)


@lru_cache(maxsize=512)
def _oracle(machine: Machine, kind: Kind, drafters: tuple[str, ...]) -> Oracle:
    return Oracle(machine, kind, drafters)


def follow_oracle(text: Text, machine: Machine, drafters: Sequence[str], end: int) -> Run:
    """What the oracle of each kind does, up to a position."""
    return _play(text, machine, lambda kind: _oracle(machine, kind, tuple(drafters)), end)


def _play(text: Text, machine: Machine, oracle_of: Callable[[Kind], Oracle], end: int) -> Run:
    run, position, read, seen, total = Run(), 0, -1, -1, 0.0
    while position < end:
        text.reach(position + 2 * LIMIT)
        oracle = oracle_of(text.kinds[position])
        choice = oracle.choose(text.levels[max(0, seen)], position - seen, text.stages[position])
        if choice == _MODEL:
            drafted, width, spent = oracle.draft(text, position, position - read)
            total += spent
            read, hits = position + drafted - 1, text.kept
        else:
            drafted, width, hits = 0, choice, text.right
        accepted = 0
        while accepted < width and hits[position + accepted]:
            accepted += 1
        if drafted:
            seen = position + min(accepted, drafted - 1)
        position += accepted + 1
        read = min(read, position - 1)
        total += machine.main[width + 1]
        run.ends.append(position)
        run.seconds.append(total)
    return run
