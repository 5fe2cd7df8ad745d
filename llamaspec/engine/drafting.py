"""The draft of a round: who drafts for which sequence, and how much of it the main model is given."""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from random import Random

import numpy as np

from llamaspec.control.auto import AutoCourse, Knowledge
from llamaspec.control.course import Course, FixedCourse, Situation
from llamaspec.decode.ports import Draft, Drafter, DraftRequest, Grammar, Pace, Stop
from llamaspec.decode.sequence import Sequence
from llamaspec.engine.slots import Place
from llamaspec.errors import GrammarError
from llamaspec.settings import SpeculationSettings


@dataclass(frozen=True, slots=True)
class Room:
    """What a round has place for: `limit` draft tokens for each sequence, and `share` tokens of its batch.

    `beside`: tokens of prompts in the batch. `waiting`: other sequences, which all wait for the round.
    `reading`: tokens of texts that a draft model may evaluate in it before it drafts.
    """

    limit: int
    share: int
    beside: int
    waiting: int
    reading: int


class Drafting:
    """The drafters, and for every sequence that may draft its course."""

    def __init__(self, drafters: Seq[Drafter], knowledge: Knowledge) -> None:
        self._drafters = {drafter.name: drafter for drafter in drafters}
        self._knowledge = knowledge
        self._courses: dict[int, Course] = {}
        self._sharing = 0  # sequences that a model drafted for in the last round

    # The life of a sequence.

    def add(self, sequence: Sequence) -> None:
        """A request has come: choose its course."""
        if (course := self._course(sequence.request.speculation, sequence.id)) is not None:
            self._courses[sequence.id] = course

    def begin(self, place: Place) -> None:
        for drafter in self._drafters.values():
            drafter.begin(place.slot, place.common, place.source)

    def settle(self, sequence: Sequence, draft: Draft, emitted: Seq[int]) -> None:
        """The main model has judged a draft; `emitted` is what it made of it."""
        for drafter in self._drafters.values():
            drafter.settle(sequence.slot, sequence.tokens)
        if course := self._courses.get(sequence.id):
            alone = self._sharing == 1  # what several took together is nobody's price
            course.learn(draft, emitted, sequence.stats.last_draft_seconds if alone else 0.0)

    def remove(self, sequence: Sequence) -> None:
        """The request has ended; what its slot holds may stay."""
        self._courses.pop(sequence.id, None)

    def forget(self, slot: int) -> None:
        for drafter in self._drafters.values():
            drafter.end(slot)

    def _course(self, settings: SpeculationSettings, seed: int) -> Course | None:
        names = settings.choose(tuple(self._drafters))
        free = [name for name in names if self._drafters[name].free]
        if not names:
            return None
        if settings.mode == "fixed":
            return FixedCourse(names, free, settings.draft_min, settings.p_min)
        return AutoCourse(self._knowledge, free, [name for name in names if name not in free], Random(seed))

    # A round.

    def draft(
        self,
        decoding: Seq[Sequence],
        room: Room,
        budget: Callable[[Sequence], int],
        is_eog: Callable[[int], bool],
    ) -> tuple[list[Draft], bool]:
        """A draft for each sequence: what is owed, else what its course makes of what the drafters offer.

        `budget`: how many more tokens a sequence may emit. Also whether a draft model was only reading.
        """
        widths = {s.id: 1 + s.owed.width for s in decoding}  # in the main batch, as far as that is known
        drafts = {s.id: s.owed for s in decoding}
        asked: dict[str, list[tuple[Sequence, int, Pace]]] = {}
        depth = max((s.held for s in decoding), default=0)
        for sequence in decoding:
            beside = room.beside + sum(widths.values()) - widths[sequence.id]
            situation = self._situation(sequence, room, depth, beside, budget(sequence))
            if sequence.owed.tokens:  # its drafter is still who drafted that
                sequence.owed.cut(situation.limit if situation else 0, Stop.CEILING)
                widths[sequence.id] = 1 + sequence.owed.width
                continue
            sequence.drafter = ""
            course = self._courses.get(sequence.id)
            if course is None or situation is None:
                continue
            request = self._request(sequence, situation.limit, course.pace)
            offers = {name: self._drafters[name].draft([request])[0] for name in course.free}
            if (plan := course.choose(situation, offers)) is None:
                nothing_offered = not any(offer.width for offer in offers.values())
                sequence.stats.undrafted[Stop.MATCH if offers and nothing_offered else Stop.GAIN] += 1
                continue
            sequence.drafter = plan.drafter
            if plan.draft is not None:
                drafts[sequence.id] = plan.draft
                course.cut(plan.draft)
                widths[sequence.id] = 1 + plan.draft.width
            elif plan.pace is not None:
                asked.setdefault(plan.drafter, []).append((sequence, situation.limit, plan.pace))
        reading = self._ask_models(asked, drafts, room.reading)
        widths |= {s.id: 1 + drafts[s.id].width for s in decoding}
        for pairs in asked.values():
            for sequence, *_ in pairs:
                draft = drafts[sequence.id]
                beside = room.beside + sum(widths.values()) - widths[sequence.id]
                self._courses[sequence.id].cut(draft, beside)
                widths[sequence.id] = 1 + draft.width
        for sequence in decoding:
            cut_at_end(drafts[sequence.id], is_eog)
            if sequence.sampler.grammar is not None:
                cut_at_forbidden(drafts[sequence.id], sequence.sampler.grammar)
        return [drafts[s.id] for s in decoding], reading

    def _ask_models(
        self, asked: Mapping[str, Seq[tuple[Sequence, int, Pace]]], drafts: dict[int, Draft], most: int
    ) -> bool:
        """Drafts of those that evaluate a model, one batch a step for all; whether one was only reading.

        Who has more than `most` tokens to read before shares them with the others of that kind.
        """
        reading = False
        for name, wanted in asked.items():
            drafter = self._drafters[name]
            behind = [drafter.unread(s.slot, len(s.tokens)) > most for s, *_ in wanted]
            part = max(1, most // max(1, sum(behind)))
            answers = drafter.draft(
                [
                    self._request(s, limit, pace, part if late else most)
                    for (s, limit, pace), late in zip(wanted, behind, strict=True)
                ]
            )
            drafts |= {s.id: draft for (s, *_), draft in zip(wanted, answers, strict=True)}
            reading = reading or any(draft.stopped is Stop.READING for draft in answers)
        self._sharing = sum(map(len, asked.values()))
        return reading

    def _situation(
        self, sequence: Sequence, room: Room, depth: int, beside: int, remaining: int
    ) -> Situation | None:
        """None where there is nothing to gain: the last token of a budget needs no draft."""
        length = len(sequence.tokens)
        ceiling = sequence.request.speculation.ceiling
        limit = min(ceiling, remaining - 1, room.limit, room.share - (length - sequence.held))
        if limit < 1:
            return None
        unread = {name: d.unread(sequence.slot, length) for name, d in self._drafters.items() if not d.free}
        return Situation(limit, depth, remaining, beside, room.waiting, self._sharing, unread)

    @staticmethod
    def _request(sequence: Sequence, limit: int, pace: Pace, reading: int = 0) -> DraftRequest:
        return DraftRequest(sequence.slot, sequence.tokens, limit, pace, sequence.sampler, reading)


def cut_at_end(draft: Draft, is_eog: Callable[[int], bool]) -> None:
    """Nothing is emitted behind an end of generation, which itself needs a row but not the main model."""
    for position, token in enumerate(draft.tokens[: draft.width]):
        if is_eog(token):
            draft.cut(position, Stop.END)
            return


def cut_at_forbidden(draft: Draft, grammar: Grammar) -> None:
    """Nothing from the first token that the grammar forbids needs the main model."""
    ahead = grammar.copy()
    for position, token in enumerate(draft.tokens[: draft.width]):
        try:
            allowed = bool(ahead.allowed(np.array([token]))[0])
            if allowed:
                ahead.accept(token)
        except GrammarError:  # it has become too much to follow: the main model's token will tell
            allowed = False
        if not allowed:
            draft.cut(position, Stop.GRAMMAR)
            return
