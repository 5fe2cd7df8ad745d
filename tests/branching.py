"""Every way that chance can go, with its probability: distributions computed, not estimated.

A computation that draws from an `Oracle` is run once for each combination of outcomes. What it returns
is then known with its exact probability, up to the rounding of floating-point sums.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Self, TypeVar

from llamaspec.decode.ports import Distribution
from llamaspec.decode.sampling import Sampler

Outcome = TypeVar("Outcome", bound=Hashable)


class Oracle:
    """Answers the first choices as told, the others with the first outcome that is possible."""

    def __init__(self, told: Sequence[int]) -> None:
        self._told = list(told)
        self._taken: list[int] = []
        self.weight = 1.0
        self.untried: list[list[int]] = []

    def choose(self, probabilities: Sequence[float]) -> int:
        possible = [index for index, p in enumerate(probabilities) if p > 0.0]
        if len(self._taken) < len(self._told):
            choice = self._told[len(self._taken)]
        else:
            choice = possible[0]
            self.untried += [[*self._taken, other] for other in possible[1:]]
        self._taken.append(choice)
        self.weight *= float(probabilities[choice])
        return choice


def enumerate_outcomes(run: Callable[[Oracle], Outcome]) -> dict[Outcome, float]:
    """The distribution of what `run` returns."""
    totals: dict[Outcome, float] = defaultdict(float)
    paths: list[list[int]] = [[]]
    while paths:
        oracle = Oracle(paths.pop())
        totals[run(oracle)] += oracle.weight
        paths += oracle.untried
    return dict(totals)


class _Uniform:
    """A number drawn evenly from [0, scale): comparing it with a bound is the choice."""

    def __init__(self, oracle: Oracle, scale: float = 1.0) -> None:
        self._oracle = oracle
        self._scale = scale

    def __mul__(self, factor: float) -> Self:
        return type(self)(self._oracle, self._scale * factor)

    def __lt__(self, bound: float) -> bool:
        below = min(1.0, bound / self._scale)
        return self._oracle.choose([1.0 - below, below]) == 1


def branching_sampler(oracle: Oracle) -> type[Sampler]:
    """A `Sampler` whose chance is the oracle's."""

    class BranchingSampler(Sampler):
        def chance(self) -> float:
            return _Uniform(oracle)  # type: ignore[return-value]

        def draw(self, distribution: Distribution, position: int | None = None) -> int:
            return int(distribution.ids[oracle.choose(distribution.probs.tolist())])

    return BranchingSampler
