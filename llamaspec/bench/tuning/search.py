"""A search over stages, and the proof of what it found; pure but for the race that it is given.

The default stays in the race. What has won stage by stage is taken only if, in fresh heats, it is faster
than the default beyond the noise on prompts that were tuned on, and no slower on others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice

from llamaspec.bench.tuning.candidates import Candidate, Scope, Stage
from llamaspec.bench.tuning.contest import MOST_HEATS, Contest, Tried
from llamaspec.bench.tuning.proof import Proof, pairs
from llamaspec.bench.tuning.race import Pace, Race, State
from llamaspec.bench.workload import Prompt, Workload
from llamaspec.errors import UsageError
from llamaspec.figures import FEWEST
from llamaspec.profiles import Profile

_SEARCHING = 0.6  # of the time; the rest proves what was found

PROOF = "proof"


@dataclass(frozen=True, slots=True)
class Split:
    """Prompts to tune on, and prompts to prove it on."""

    held_in: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]


def split(workload: Workload) -> Split:
    """The last prompt of each kind that has several is held out, and without such kinds every other one.

    Both are in turns of the kinds, so that any few prompts are of several kinds. Raises UsageError for a
    workload of one prompt.
    """
    if len(workload.prompts) < 2:
        raise UsageError(
            "Tuning needs two prompts at least: one to tune on, one to prove it on.", "Add prompts."
        )
    kinds = [[prompt for prompt in workload.prompts if prompt.kind == kind] for kind in workload.kinds]
    held_out = tuple(prompts[-1] for prompts in kinds if len(prompts) > 1) or workload.prompts[1::2]
    held_in = [[prompt for prompt in prompts if prompt not in held_out] for prompts in kinds]
    in_turns = chain.from_iterable(
        (prompts[place] for prompts in held_in if place < len(prompts))
        for place in range(max(map(len, held_in)))
    )
    return Split(tuple(in_turns), held_out)


@dataclass(frozen=True, slots=True)
class Found:
    """`chosen` may be the default; `contender` is what had won the stages or led them, `contended` its proof.

    `proof` has the figures of what was chosen. `why` is a sentence.
    """

    chosen: Candidate
    contender: Candidate
    why: str
    tried: tuple[Tried, ...]
    contended: Proof
    proof: Proof


@dataclass(slots=True)
class Search:
    """`race` measures, `seconds` are all there is, `on_state` is told before every heat."""

    profile: Profile
    scope: Scope
    stages: Sequence[Stage]
    prompts: Split
    race: Race
    seconds: float
    n_predict: int
    on_state: Callable[[State], None] = lambda state: None
    _pace: Pace = field(init=False)
    _raced: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._pace = Pace(self.race)

    def run(self) -> Found:
        """Raises what the race raises: errors of the default itself."""
        default = Candidate()
        contender, tried = self._compete(default)
        contended = self._prove(default, contender)
        if contender is default:
            why = "Nothing that was tried is faster than the default beyond the noise."
            return Found(default, default, why, tried, contended, contended)
        taken, why = contended.decide()
        proof = contended if taken else self._prove(default, default)
        return Found(contender if taken else default, contender, why, tried, contended, proof)

    def _compete(self, default: Candidate) -> tuple[Candidate, tuple[Tried, ...]]:
        """Who has won the stages, which are gone through again while there is time and something is open.

        Where nobody has, it is whoever seemed the fastest when the time came: the proof is of fresh heats.
        """
        incumbent = default
        contests: dict[tuple[str, str], Contest] = {}
        tried: dict[tuple[str, str], Tried] = {}
        left, before = list(self.stages), -1.0
        while left and self.race.spent > before:
            before, still_open = self.race.spent, list[Stage]()
            for place, stage in enumerate(left):
                at = (stage.name, incumbent.key)
                contest = contests.get(at) or self._contest(stage, incumbent)
                contests[at] = contest
                contest.run(self.n_predict, self.race.capacity, self._until(left[place:]), self._limit)
                tried |= {(one.stage, one.change.name): one for one in contest.tried}
                incumbent = contest.winner or incumbent
                if contest.open:
                    still_open.append(replace(stage, changes=contest.open))
            left = still_open
        if incumbent is default:
            favourites = [one for contest in contests.values() if (one := contest.favourite)]
            _, incumbent = max(favourites, key=lambda one: one[0], default=(1.0, default))
        return incumbent, tuple(tried.values())

    def _until(self, left: Sequence[Stage]) -> float:
        """When the first of the stages that are left has to end: what time there is goes by their size."""
        sizes = [len(stage.changes) for stage in left]
        return self.race.spent + (self._limit - self.race.spent) * sizes[0] / sum(sizes)

    @property
    def _limit(self) -> float:
        return _SEARCHING * self.seconds

    def _contest(self, stage: Stage, incumbent: Candidate) -> Contest:
        there = {self.scope.effective(self.profile, incumbent)}
        challengers = []
        for change in stage.changes:
            candidate = incumbent.changed(change)
            if (means := self.scope.effective(self.profile, candidate)) not in there:
                there.add(means)
                challengers.append((change, candidate))
        prompts = self._prompts(stage)
        return Contest(
            stage, incumbent, challengers, prompts, self._pace, lambda doing: self._tell(stage.name, doing)
        )

    def _prompts(self, stage: Stage) -> list[Prompt]:
        """The longest where reading is measured; else those that were not used for the longest time."""
        if stage.goal == "reading":
            by_length = sorted(self.prompts.held_in, key=lambda prompt: -len(prompt.prompt))
            return list(islice(cycle(by_length), MOST_HEATS))
        start = self._raced % len(self.prompts.held_in)
        self._raced += 2
        return list(islice(cycle(self.prompts.held_in), start, start + MOST_HEATS))

    def _prove(self, default: Candidate, contender: Candidate) -> Proof:
        """Heats until the verdict is clear or the time is up; one there is at least, to have figures of."""
        is_plain = self.scope.effective(self.profile, contender)[1] == ()
        proof = Proof(default, contender, is_plain)
        order = pairs(self.prompts.held_in, self.prompts.held_out)
        if contender is default:  # nothing to prove: its figures alone
            order = order[: 2 * FEWEST]
        for number, (prompt, held_in) in enumerate(order):
            if number and (proof.clear or not self._pace.allows(len(proof.field), self.seconds)):
                break
            self._tell(PROOF, contender.name)
            proof.add(prompt, self._pace.heat(proof.field, prompt, self.n_predict), held_in=held_in)
        return proof

    def _tell(self, stage: str, doing: str) -> None:
        self.on_state(State(stage, doing, self.race.spent, self.seconds))
