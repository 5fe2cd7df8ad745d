"""Successive halving: challengers race the one that has won so far, and the slower ones drop out.

After Jamieson and Talwalkar (2016), "Non-stochastic best arm identification", with paired heats in place of
training epochs; a third stays, as in Li et al. (2018), "Hyperband". Whoever is left has to be faster beyond
the noise, in heats that it was not selected by: the best of several has had luck in those.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llamaspec.bench.tuning.candidates import Candidate, Goal, Stage
from llamaspec.bench.tuning.race import Pace, Tally
from llamaspec.bench.workload import Prompt
from llamaspec.figures import Ratio

WON, FASTER, SLOWER, NO_GAIN, HALVED, UNCLEAR, NOT_TRIED, FAILED = (
    "won",
    "faster",
    "slower",
    "no gain beyond the noise",
    "others were faster",
    "not clear in the time there was",
    "no time",
    "failed",
)

MOST_HEATS = 12
"""Most prompts of one contest."""

_HEATS = 2  # of a challenger between two cuts
_KEPT = 3  # one of so many stays
_FEWEST_HEATS = 4  # to win in
_MANY_LOOKS = 1.5  # times the interval of a single look: it is looked at after every heat
_HOPELESS = 0.9
_HOPELESS_AFTER = 2
_WORTH_IT = 1.01
_READING_KEPT = 0.9  # of the reading speed, by whoever writes faster
_WRITING_KEPT = 0.98  # and the reverse


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a change: its ratios are to what had won before it, not to the default."""

    stage: str
    change: Candidate
    writing: Ratio | None
    reading: Ratio | None
    outcome: str


class Contest:
    """One stage: `run` it, again where it is `open` and there is more time, then see `winner` and `tried`.

    `challengers` are the changes that it is about, each with the candidate that it makes of the incumbent.
    """

    def __init__(
        self,
        stage: Stage,
        incumbent: Candidate,
        challengers: Sequence[tuple[Candidate, Candidate]],
        prompts: Sequence[Prompt],
        pace: Pace,
        on_heat: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.winner: Candidate | None = None
        self._stage = stage
        self._incumbent = incumbent
        self._changes = {candidate.key: change for change, candidate in challengers}
        self._alive = [candidate for _, candidate in challengers]
        self._candidates = tuple(self._alive)
        self._prompts = prompts[:MOST_HEATS]
        self._pace = pace
        self._tally = Tally(incumbent)
        self._fresh = Tally(incumbent)  # since the last selection
        self._on_heat = on_heat
        self._dropped: dict[str, str] = {}

    def run(self, n_predict: int, capacity: int, until: float, limit: float) -> None:
        """Race until one is left and is clear, the prompts are used up, or the time `until` has come.

        The first heats are run even then, unless the `limit` of all contests has come: without them nothing
        is known at all.
        """
        while self._prompts and self._alive and self.winner is None:
            count = _HEATS if len(self._alive) > 1 else 1
            batch, self._prompts = self._prompts[:count], self._prompts[count:]
            if not self._race(batch, n_predict, capacity, until if self._tally.writing else limit):
                break
            self._cut()
        if self.winner is None and self._alive:
            best = max(self._alive, key=self._value)
            if self._judge(best) == FASTER:
                self.winner = best
            elif not self._prompts:
                for candidate in list(self._alive):
                    self._drop(candidate, NO_GAIN)

    @property
    def open(self) -> tuple[Candidate, ...]:
        """Changes of which it is not clear yet what they are worth."""
        return () if self.winner else tuple(self._changes[one.key] for one in self._alive)

    @property
    def favourite(self) -> tuple[float, Candidate] | None:
        """The fastest that is open, behind how many times as fast as the incumbent it seems to be."""
        if self.winner is not None or not self._alive:
            return None
        fastest = max(self._alive, key=self._value)
        seems = self._value(fastest)
        return (seems, fastest) if seems > _WORTH_IT else None

    @property
    def tried(self) -> Iterator[Tried]:
        for candidate in self._candidates:
            key = candidate.key
            writing = self._ratio(candidate, "writing")
            if key in self._tally.failed:
                outcome = f"{FAILED}: {self._tally.failed[key]}"
            elif candidate is self.winner:
                outcome = WON
            else:
                outcome = self._dropped.get(key) or (UNCLEAR if writing else NOT_TRIED)
            reading = self._ratio(candidate, "reading")
            yield Tried(self._stage.name, self._changes[key], writing, reading, outcome)

    def _race(self, batch: Sequence[Prompt], n_predict: int, capacity: int, until: float) -> bool:
        """Every challenger on every prompt; False where the time ran out."""
        size = max(1, capacity - 1)
        for start in range(0, len(self._alive), size):
            for prompt in batch:
                group = [
                    one for one in self._alive[start : start + size] if one.key not in self._tally.failed
                ]
                if not group:
                    break
                if not self._pace.allows(1 + len(group), until):
                    return False
                self._on_heat(", ".join(self._changes[one.key].name for one in group))
                heat = self._pace.heat((self._incumbent, *group), prompt, n_predict)
                self._tally.add(prompt, heat)
                self._fresh.add(prompt, heat)
        return True

    def _cut(self) -> None:
        """Drop whoever has failed or lost, then all but the fastest third; or crown the last."""
        last = len(self._alive) == 1
        for candidate in list(self._alive):
            verdict = self._judge(candidate)
            if candidate.key in self._tally.failed:
                self._alive.remove(candidate)
            elif verdict in (SLOWER, NO_GAIN):
                self._drop(candidate, verdict)
            elif verdict == FASTER and last:
                self.winner = candidate
        if len(self._alive) > 1:
            order = sorted(self._alive, key=self._value, reverse=True)
            for candidate in order[-(-len(order) // _KEPT) :]:
                self._drop(candidate, HALVED)
            self._fresh = Tally(self._incumbent)

    def _drop(self, candidate: Candidate, why: str) -> None:
        self._alive.remove(candidate)
        self._dropped[candidate.key] = why

    def _ratio(self, candidate: Candidate, goal: Goal) -> Ratio | None:
        """By what it was not selected by, as far as there is any."""
        return self._fresh.ratio(candidate, goal) or self._tally.ratio(candidate, goal)

    def _value(self, candidate: Candidate) -> float:
        found = self._tally.ratio(candidate, self._stage.goal)
        return found.value if found else 0.0

    def _judge(self, candidate: Candidate) -> str:
        """FASTER, SLOWER, NO_GAIN, or nothing while it is open."""
        whole = self._tally.ratio(candidate, self._stage.goal)
        fresh = self._fresh.ratio(candidate, self._stage.goal)
        if whole is None:
            return ""
        if whole.verdict == "slower" or (whole.count >= _HOPELESS_AFTER and whole.value < _HOPELESS):
            return SLOWER
        if fresh is None or fresh.interval is None or fresh.count < _FEWEST_HEATS:
            return ""
        low, _ = fresh.interval
        if low > 0.0 and fresh.value > (fresh.value / low) ** _MANY_LOOKS:
            return FASTER if self._keeps_the_rest(candidate) else SLOWER
        return NO_GAIN if fresh.value < _WORTH_IT else ""

    def _keeps_the_rest(self, candidate: Candidate) -> bool:
        """What a stage is not about may not be paid for it."""
        about_writing = self._stage.goal == "writing"
        other = self._ratio(candidate, "reading" if about_writing else "writing")
        return other is None or other.value >= (_READING_KEPT if about_writing else _WRITING_KEPT)
