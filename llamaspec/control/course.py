"""The seam between the engine and its policies: who drafts for a sequence in a round, and how far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Protocol

from llamaspec.decode.ports import Draft, Evidence, Pace, Stop


@dataclass(frozen=True, slots=True)
class Situation:
    """A round ahead. `limit`: most draft tokens (>= 1). `depth`: tokens in the main KV cache.

    `remaining`: tokens that the sequence may still emit. `beside`: tokens of others in the main batch;
    `waiting`: other sequences, which wait for as long as this one; `sharing`: for how many, it included, a
    model drafted in the round before. `unread`: for each drafter, tokens that it has to evaluate before its
    first draft token is there.
    """

    limit: int
    depth: int
    remaining: int
    beside: int = 0
    waiting: int = 0
    sharing: int = 1
    unread: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Either the `draft` of a free drafter as it stands, or a `drafter` to ask, at this `pace`."""

    drafter: str
    pace: Pace | None = None
    draft: Draft | None = None


class Course(Protocol):
    """Decides for one sequence, and learns from what came of it."""

    @property
    def free(self) -> Sequence[str]:
        """Free drafters whose offers it wants to see."""
        ...

    @property
    def pace(self) -> Pace:
        """At which those offers are made."""
        ...

    def choose(self, situation: Situation, offers: Mapping[str, Draft]) -> Plan | None:
        """What to do in this round; None for not drafting."""
        ...

    def cut(self, draft: Draft, beside: int | None = None) -> None:
        """Cut a draft to what is worth verifying. `beside`: tokens of others there, if that is news."""
        ...

    def learn(self, draft: Draft, emitted: Sequence[int], draft_seconds: float) -> None:
        """What the main model made of the draft, which may be empty; every round, exactly once.

        `emitted`: the tokens that were kept and the one after. `draft_seconds`: what drafting took; 0: nobody
        knows.
        """
        ...


class FixedPace:
    """Draft to the limit while the drafter is sure enough, as llama.cpp does."""

    refusal = Stop.P_MIN

    def __init__(self, p_min: float) -> None:
        self._p_min = p_min

    def admits(self, evidence: Evidence) -> bool:
        return evidence.guess >= self._p_min

    def goes_on(self, draft: Draft) -> bool:
        return True

    def ahead(self, guesses: Sequence[Evidence]) -> int:
        return sum(1 for _ in takewhile(self.admits, guesses))


class FixedCourse:
    """The first of the drafters, in the order they are listed, that has something to offer."""

    def __init__(self, drafters: Sequence[str], free: Sequence[str], draft_min: int, p_min: float) -> None:
        """`drafters` in order of preference; which of them are `free`."""
        self._drafters = drafters
        self._draft_min = draft_min
        self.free: Sequence[str] = [name for name in drafters if name in free]
        self.pace: Pace = FixedPace(p_min)

    def choose(self, situation: Situation, offers: Mapping[str, Draft]) -> Plan | None:
        if situation.limit < self._draft_min:
            return None
        for name in self._drafters:
            if name not in self.free:
                return Plan(name, self.pace)
            if offers[name].width >= max(1, self._draft_min):
                return Plan(name, draft=offers[name])
        return None

    def cut(self, draft: Draft, beside: int | None = None) -> None:
        if draft.width < self._draft_min:
            draft.cut(0, Stop.SHORT)

    def learn(self, draft: Draft, emitted: Sequence[int], draft_seconds: float) -> None:
        pass
