"""A world to try the policy of mode `auto` in.

A text is a row of positions. At each one a draft model has a level of confidence, and its token is kept or
not; and the text so far has an n-gram match of some stage (0: none; each right token lengthens it by one)
whose token is right or not. Levels follow a Markov chain, as stages do. How sure they are, how often they are
right, and how often a match turns up, is a matter of the kind of text; the figures of the kinds were taken
from answers of Qwen2.5-Coder 1.5B with the 0.5B as its draft model. A machine has prices by batch width.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log
from random import Random
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from llamaspec.control.auto import AutoCourse, Knowledge
from llamaspec.control.course import Situation
from llamaspec.control.prices import MAX_WIDTH
from llamaspec.decode.drafters.model import confidence_bucket
from llamaspec.decode.ports import Draft, Evidence, Pace, Stop

LIMIT = 16
"""Most tokens of a draft."""

STAGES = 6
_DEPTH = 300
_NGRAM_GUESS = 0.5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Machine:
    """Seconds of a decode by its width, from 0 (unused) to MAX_WIDTH."""

    name: str
    main: tuple[float, ...]
    draft: tuple[float, ...]

    @classmethod
    def of(cls, name: str, main: Mapping[int, float], draft: Mapping[int, float]) -> "Machine":
        """From milliseconds at some widths."""
        return cls(name, _table(main), _table(draft))


def _table(milliseconds: Mapping[int, float]) -> tuple[float, ...]:
    known = sorted(milliseconds)
    last, before = known[-1], known[-2]
    slope = (milliseconds[last] - milliseconds[before]) / (last - before)
    beyond = milliseconds[last] + slope * (MAX_WIDTH - last)
    values = [milliseconds[width] for width in known]
    seconds = np.interp(range(MAX_WIDTH + 1), [*known, MAX_WIDTH], [*values, beyond]) / 1000.0
    return tuple(seconds.tolist())


# A to C are the reference sets on two cores (the draft model at widths above 8: reading, one row is wanted);
# the others are like a GPU, and like something in between.
MACHINES = {
    machine.name: machine
    for machine in (
        Machine.of(
            "A",
            {1: 98, 2: 121, 4: 155, 6: 160, 8: 175, 12: 211, 16: 247, 32: 440},
            {1: 15.5, 2: 29, 4: 38, 8: 66, 64: 167},
        ),
        Machine.of(
            "B",
            {1: 62, 2: 102, 4: 122, 6: 201, 8: 185, 12: 253, 16: 319, 32: 563},
            {1: 22.8, 2: 42, 4: 52, 8: 74, 64: 186},
        ),
        Machine.of(
            "C",
            {1: 35, 2: 60, 4: 103, 6: 146, 8: 238, 12: 320, 16: 296, 32: 509},
            {1: 27.6, 2: 37, 4: 50, 8: 84, 64: 218},
        ),
        Machine.of("flat", {1: 10, 16: 10, 32: 14}, {1: 1.5, 16: 1.5, 32: 2.0}),
        Machine.of("between", {1: 20, 2: 24, 4: 28, 8: 36, 16: 52, 32: 90}, {1: 6, 2: 7, 8: 11, 32: 27}),
    )
}

CONFIDENCES = (0.2, 0.4, 0.6, 0.78, 0.9, 0.97, 0.998)
_EVIDENCE = [Evidence("model", sure, confidence_bucket(sure)) for sure in CONFIDENCES]
_MATCHES = [Evidence("ngram", _NGRAM_GUESS, stage) for stage in range(STAGES + 1)]


@dataclass(frozen=True)
class Kind:
    """A kind of text.

    `levels` are the shares of the levels of confidence, of which one follows itself by `stickiness` more than
    by chance. By `shift` the log odds of keeping a draft token differ from the model's confidence. `fresh` is
    how often a match turns up where there was none, `right` how often its token is right, by stage from 1.
    """

    name: str
    levels: tuple[float, ...]
    fresh: float
    right: tuple[float, ...]
    shift: float = 0.0
    stickiness: float = 0.25

    @property
    def kept(self) -> Floats:
        """By level."""
        return np.array([_shifted(sure, self.shift) for sure in CONFIDENCES])

    @property
    def rights(self) -> Floats:
        """By stage; none is right where there is no match."""
        return np.array([0.0, *(_shifted(right, self.shift) for right in self.right)])

    @property
    def chain(self) -> Floats:
        shares = np.array(self.levels) / sum(self.levels)
        return self.stickiness * np.eye(len(shares)) + (1.0 - self.stickiness) * shares

    @property
    def fresh_stages(self) -> Floats:
        """Where the match is after a token that it did not foresee."""
        stages = np.zeros(STAGES + 1)
        stages[:3] = 1.0 - self.fresh, 0.8 * self.fresh, 0.2 * self.fresh
        return stages


def _shifted(rate: float, shift: float) -> float:
    return 1.0 / (1.0 + exp(-log(rate / (1.0 - rate)) - shift))


EDIT = Kind("edit", (0, 0.005, 0.015, 0.02, 0.03, 0.06, 0.87), 0.6, (0.6, 0.8, 0.93, 0.95, 0.99, 0.99))
JSON = Kind("json", (0, 0.01, 0.02, 0.02, 0.03, 0.07, 0.85), 0.4, (0.7, 0.75, 0.65, 0.8, 0.8, 0.8))
CODE = Kind("code", (0.01, 0.04, 0.07, 0.08, 0.1, 0.14, 0.56), 0.18, (0.5, 0.6, 0.72, 0.78, 0.8, 0.85), 0.3)
CHAT = Kind("chat", (0.15, 0.25, 0.2, 0.13, 0.1, 0.07, 0.1), 0.12, (0.34, 0.4, 0.6, 0.6, 0.7, 0.8))
STORY = Kind("story", (0.25, 0.25, 0.2, 0.12, 0.08, 0.05, 0.05), 0.1, (0.22, 0.35, 0.4, 0.5, 0.6, 0.7), -0.3)
KINDS = (EDIT, CHAT, CODE, STORY, JSON)


class Text:
    """Positions of the kinds that a schedule tells one by one, written as far as somebody reads (`reach`)."""

    def __init__(self, schedule: Callable[[Random], "Schedule"], length: int, seed: int) -> None:
        """`length` is where generation ends; there is more text behind it."""
        self.length = length
        self.kinds: list[Kind] = []
        self.levels: list[int] = []
        self.kept: list[bool] = []
        self.stages: list[int] = []
        self.right: list[bool] = []
        self._random = Random(seed)
        self._schedule = schedule(self._random)
        self._level, self._stage = len(CONFIDENCES) - 1, 0
        self._laws: dict[Kind, _Laws] = {}

    def reach(self, end: int) -> None:
        """Have at least `end` positions."""
        random = self._random
        while len(self.kinds) < end:
            kind = next(self._schedule)
            laws = self._laws.get(kind)
            if laws is None:
                laws = self._laws[kind] = _Laws(kind)
            [self._level] = random.choices(_LEVELS, cum_weights=laws.levels[self._level])
            self.kinds.append(kind)
            self.levels.append(self._level)
            self.kept.append(random.random() < laws.kept[self._level])
            self.stages.append(self._stage)
            self.right.append(random.random() < laws.right[self._stage])
            if self.right[-1]:
                self._stage = min(self._stage + 1, STAGES)
            else:
                [self._stage] = random.choices(_STAGES, cum_weights=laws.fresh)


_LEVELS, _STAGES = range(len(CONFIDENCES)), range(STAGES + 1)


class _Laws:
    """A kind's, as lists."""

    def __init__(self, kind: Kind) -> None:
        self.levels = np.cumsum(kind.chain, axis=1).tolist()
        self.fresh = np.cumsum(kind.fresh_stages).tolist()
        self.kept = kind.kept.tolist()
        self.right = kind.rights.tolist()


class Schedule:
    """Kinds of text without end."""

    def __init__(self, follow: Callable[[Kind], Kind], first: Kind) -> None:
        self._follow, self._kind = follow, first

    def __next__(self) -> Kind:
        self._kind = self._follow(self._kind)
        return self._kind


def steady(kind: Kind) -> Callable[[Random], Schedule]:
    return lambda random: Schedule(lambda _: kind, kind)


def switching(random: Random) -> Schedule:
    """Another kind every 150 tokens or so."""
    return Schedule(
        lambda kind: random.choice(KINDS) if random.random() < 1 / 150 else kind, random.choice(KINDS)
    )


def walking(base: Kind) -> Callable[[Random], Schedule]:
    """One kind whose acceptances wander: a step of 0.5 in the log odds every 40 tokens, from -1.5 to 1."""

    def of(random: Random) -> Schedule:
        def follow(kind: Kind) -> Kind:
            if random.random() >= 1 / 40:
                return kind
            shift = kind.shift + random.choice((-0.5, 0.5))
            return replace(kind, shift=min(base.shift + 1.0, max(base.shift - 1.5, shift)))

        return Schedule(follow, base)

    return of


@dataclass
class Run:
    """By round: the position where it ended, and the seconds until then. `asked`: rounds by paid drafter."""

    ends: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)

    def between(self, start: int, end: int) -> float:
        """Seconds for a stretch of the text."""
        at = np.interp([start, end], [0, *self.ends], [0.0, *self.seconds])
        return float(at[1] - at[0])


class Clock:
    """What is observed of a true time: 10 % of noise, and a common drift of up to a fifth."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._drift = 0.0

    def tick(self) -> None:
        self._drift = min(0.2, max(-0.2, self._drift + self._random.gauss(0.0, 0.01)))

    def observed(self, seconds: float) -> float:
        return seconds * (1.0 + self._drift) * (1.0 + self._random.uniform(-0.1, 0.1))


def calibrated(knowledge: Knowledge, machine: Machine, seed: int = 0) -> Knowledge:
    """The prices measured as at the first start."""
    clock = Clock(Random(seed))
    for width in (1, 2, 3, 4, 6, 8, 12, 16):
        knowledge.prices.main.measure(width, _DEPTH, [clock.observed(machine.main[width]) for _ in range(2)])
    for width in (1, 2, 4, 8, 64):
        knowledge.prices.draft.measure(
            width, _DEPTH, [clock.observed(machine.draft[width]) for _ in range(2)]
        )
    return knowledge


def follow_course(
    text: Text,
    machine: Machine,
    drafters: Sequence[str],
    knowledge: Knowledge,
    *,
    rounds: int = 1_000_000,
    seed: int = 0,
    prompt: int = 0,
    slowness: Mapping[str, float] = MappingProxyType({}),
) -> Run:
    """What `AutoCourse` does, learning from times as a `Clock` tells them; accounted by the true ones.

    Up to so many rounds, or the text's end. Drafters other than "ngram" are draft models of that machine, by
    some factor slower. They have not read the `prompt` tokens in front of the text.
    """
    free = [name for name in drafters if name == "ngram"]
    paid = [name for name in drafters if name != "ngram"]
    course = AutoCourse(knowledge, free, paid, Random(seed + 1))
    clock, prices = Clock(Random(seed + 2)), knowledge.prices
    run, position, total = Run(), 0, 0.0
    read = dict.fromkeys(paid, -1 - prompt)  # what each has evaluated

    def ask(name: str, pace: Pace, limit: int) -> tuple[Draft, float, float]:
        """A draft, the seconds it took, and what was noticed of them."""
        draft, spent, noticed = Draft(stopped=Stop.CEILING), 0.0, 0.0
        unread = position - read[name]
        for place in range(position, position + limit):
            seconds = reading(machine, unread) * slowness.get(name, 1.0)
            observed = clock.observed(seconds)
            spent, noticed = spent + seconds, noticed + observed
            prices.draft.observe(unread, _DEPTH, observed / slowness.get(name, 1.0))
            unread = 1
            evidence = replace(_EVIDENCE[text.levels[place]], source=name)
            draft.add(place if text.kept[place] else -1 - place, None, evidence)
            if len(draft.tokens) < limit and not pace.goes_on(draft):
                draft.stopped = Stop.GAIN
                break
        read[name] = position + len(draft.tokens) - 1
        run.asked[name] += 1
        return draft, spent, noticed

    while len(run.ends) < rounds and position < text.length - 1:
        clock.tick()
        text.reach(position + 2 * LIMIT)
        limit = min(LIMIT, text.length - position - 1)
        unread = {name: position - read[name] for name in paid}
        situation = Situation(limit, _DEPTH, text.length - position, unread=unread)
        plan = course.choose(situation, {name: _offer(course, text, position, limit) for name in free})
        draft, drafting, noticed = Draft(), 0.0, 0.0
        if plan is not None and plan.draft is not None:
            draft = plan.draft
        elif plan is not None and plan.pace is not None:
            draft, drafting, noticed = ask(plan.drafter, plan.pace, limit)
        if draft.width:
            course.cut(draft)
        verification = machine.main[draft.width + 1]
        prices.main.observe(draft.width + 1, _DEPTH, clock.observed(verification))
        emitted = _verified(draft, position)
        course.learn(draft, emitted, noticed)
        position += len(emitted)
        read = {name: min(length, position - 1) for name, length in read.items()}
        total += drafting + verification
        run.ends.append(position)
        run.seconds.append(total)
    return run


def _offer(course: AutoCourse, text: Text, position: int, limit: int) -> Draft:
    """What n-grams foresee: a match that goes on, whether or not its tokens are right."""
    draft = Draft(stopped=Stop.MATCH)
    stage = text.stages[position]
    for place in range(position, position + limit if stage else position):
        evidence = _MATCHES[min(stage + place - position, STAGES)]
        if not course.pace.admits(evidence):
            draft.stopped = Stop.GAIN
            break
        draft.add(place if text.right[place] else -1 - place, None, evidence)
    return draft


def _verified(draft: Draft, position: int) -> list[int]:
    """The true tokens, which are their positions, up to the first that was not foreseen."""
    emitted = [position]
    for token in draft.tokens[: draft.width]:
        if token != emitted[-1]:
            break
        emitted.append(token + 1)
    return emitted


def reading(machine: Machine, unread: int) -> float:
    """Seconds of the draft model's next token, where it has evaluated all but the last `unread` tokens."""
    chunks, rest = divmod(unread - 1, MAX_WIDTH - 1)
    return chunks * machine.draft[MAX_WIDTH - 1] + machine.draft[rest + 1]
