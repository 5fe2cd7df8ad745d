"""The engine: one decode loop for one sequence or many, with drafts or without.

    admit → draft → plan → decode → verify → settle

Sequences and events are plain data; the engine owns the backends and is the only one to call them.
Whatever ends a sequence, a stop string inside a draft, a cancel or an error, goes through `_settle`
or `_finish`, so that the invariants of `Sequence` hold after every step.
"""

import itertools
import secrets
import time
from collections.abc import Callable, Generator
from collections.abc import Sequence as Seq
from random import Random
from typing import Protocol

import numpy as np

from llamaspec.closing import Closing
from llamaspec.control.auto import AutoCourse, Knowledge
from llamaspec.control.course import Course, FixedCourse, Situation
from llamaspec.decode.ports import Backend, Draft, Drafter, DraftRequest, Feed, Grammar, Pace, Row, Stop
from llamaspec.decode.sampling import Sampler
from llamaspec.decode.sequence import Phase, Request, Sequence
from llamaspec.decode.text import Piece, TextStream
from llamaspec.decode.verify import verify
from llamaspec.engine.scheduler import share_batch
from llamaspec.errors import ClosedError, ContextError, LlamaspecError, UsageError
from llamaspec.events import DraftedToken, Event, FinishEvent, FinishReason, RoundEvent, TextEvent
from llamaspec.settings import SpeculationSettings
from llamaspec.stats import Stats


class Vocabulary(Protocol):
    """What the engine needs to know of tokens."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eog_tokens(self) -> Seq[int]: ...

    def is_eog(self, token: int) -> bool: ...

    def piece(self, token: int) -> bytes: ...


class Engine(Closing):
    """Generates for up to `slots` requests at a time; further ones wait in order.

    Prompts are read `prompt_chunk` tokens at a time, which bounds how long a cancel and the others wait.
    It is fixed: chunks of other sizes give logits that differ in rounding. `drafters` are told of every
    sequence; which of them drafts in a round is up to the request's settings. What mode `auto` knows and
    learns is in `knowledge`. `clock` gives seconds.
    """

    def __init__(
        self,
        main: Backend,
        vocabulary: Vocabulary,
        drafters: Seq[Drafter] = (),
        *,
        knowledge: Knowledge | None = None,
        slots: int = 1,
        prompt_chunk: int = 512,
        clock: Callable[[], float] = time.perf_counter,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._main = main
        self._vocabulary = vocabulary
        self._drafters = {drafter.name: drafter for drafter in drafters}
        self._knowledge = knowledge or Knowledge()
        self._clock = clock
        self._on_close = on_close
        self._free = list(range(slots))
        if slots > min(main.batch_size, main.max_rows):
            raise UsageError(f"{slots} sequences need a token each in a batch of {main.batch_size}.")
        self._most_pending = min(main.batch_size, main.max_rows) // slots  # tokens of a slot beside others
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._courses: dict[int, Course] = {}  # of those that may draft
        self._ids = itertools.count()
        self._prompt_chunk = prompt_chunk
        self._closed = False

    def submit(self, request: Request) -> int:
        """Queue a request; its id. Raises ContextError where prompt and one token don't fit."""
        self._check_open()
        prompt = request.prompt
        if not prompt:
            raise UsageError("The prompt is empty.", "Give some text to go on from.")
        if any(not 0 <= token < self._vocabulary.vocab_size for token in prompt):
            raise UsageError("The prompt holds a token id that is not in the vocabulary.")
        if len(prompt) >= self._main.context_size:
            raise ContextError(
                f"The prompt has {len(prompt)} tokens and the context {self._main.context_size}.",
                "Raise the context size (-c) or shorten the prompt.",
            )
        sampling = request.sampling
        sequence = Sequence(
            id=next(self._ids),
            request=request,
            sampler=Sampler(
                sampling,
                secrets.randbits(64) if sampling.seed < 0 else sampling.seed,
                grammar=request.grammar,
                banned=self._vocabulary.eog_tokens if sampling.ignore_eos else (),
                repeatable=request.repeatable,
            ),
            tokens=list(prompt),
            text=TextStream(sampling.stop),
            submitted=self._clock(),
        )
        if (course := self._course(request.speculation, sequence.id)) is not None:
            self._courses[sequence.id] = course
        self._waiting.append(sequence)
        return sequence.id

    def cancel(self, request: int) -> list[Event]:
        """End a request now; its last events. A request that is not there has none."""
        for sequence in (*self._waiting, *self._running):
            if sequence.id == request:
                return self._finish(sequence, FinishReason.CANCELLED)
        return []

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self._running)

    def generate(
        self,
        request: Request,
        stats: Stats | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Generator[Event]:
        """Run one request to its end, alone. Closing the iterator early cancels it.

        `stats`, where given, counts what happens; `should_stop` is asked before every step and cancels;
        an error inside the engine is raised here.
        """
        if self.busy:
            raise UsageError("A request is running.", "Read its events to the end, or close its iterator.")
        mine = self.submit(request)
        sequence = self._waiting[-1]
        if stats is not None:
            sequence.stats = stats
        try:
            while sequence.phase is not Phase.DONE:
                for event in self.cancel(mine) if should_stop() else self.step():
                    if event.request == mine:
                        if isinstance(event, FinishEvent) and event.error is not None:
                            raise event.error
                        yield event
        finally:
            self.cancel(mine)

    def step(self) -> list[Event]:
        """One round for every running sequence; what came of it.

        An error of the backend ends all sequences of the batch with an error event each.
        """
        self._check_open()
        self._admit()
        if not self._running:
            return []
        try:
            return self._round()
        except LlamaspecError as error:
            return [
                event for s in list(self._running) for event in self._finish(s, FinishReason.ERROR, error)
            ]

    def logits(self, tokens: Seq[int]) -> Row:
        """What the main model makes of a text: a copy of its last row. Only while nothing is running."""
        self._check_open()
        if self.busy or not tokens:
            raise UsageError("Logits are read of a text that is not empty, while no request is running.")
        slot, step = self._free[0], self._main.batch_size
        try:
            for start in range(0, len(tokens), step):
                [rows] = self._main.decode([Feed(slot, tokens[start : start + step], start, rows=1)])
            row: Row = rows[-1].copy()
            return row
        finally:
            self._main.truncate(slot, 0)

    def close(self) -> list[Event]:
        """End every request and free the backends; the last events. A second call does nothing."""
        if self._closed:
            return []
        self._closed = True
        try:
            cancelled = (self._finish(s, FinishReason.CANCELLED) for s in (*self._waiting, *self._running))
            return [event for events in cancelled for event in events]
        finally:
            self._on_close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("The engine is closed.")

    def _admit(self) -> None:
        while self._waiting and self._free:
            sequence = self._waiting.pop(0)
            sequence.slot = self._free.pop(0)
            sequence.phase = Phase.PREFILL
            for drafter in self._drafters.values():
                drafter.begin(sequence.slot)
            self._running.append(sequence)

    def _round(self) -> list[Event]:
        started = self._clock()
        decoding = [s for s in self._running if s.phase is Phase.DECODING]
        prefilling = [s for s in self._running if s.phase is Phase.PREFILL]
        drafts = self._draft(decoding)
        drafted = self._clock()

        feeds = [self._feed(s, draft) for s, draft in zip(decoding, drafts, strict=True)]
        shares = share_batch(
            self._main.batch_size,
            (len(feed.tokens) for feed in feeds),
            (len(s.tokens) - s.held for s in prefilling),
            self._prompt_chunk,
        )
        served = [(s, share) for s, share in zip(prefilling, shares, strict=True) if share]
        feeds += [self._prompt_feed(s, share) for s, share in served]
        rows = self._main.decode(feeds)
        decoded = self._clock()

        events: list[Event] = []
        for sequence, draft, feed, row in zip(decoding, drafts, feeds, rows, strict=False):
            sequence.held += len(feed.tokens)
            sequence.stats.record_round(drafted - started, decoded - drafted)
            events += self._judge(sequence, draft, row)
        for (sequence, share), row in zip(served, rows[len(decoding) :], strict=True):
            sequence.held += share
            if sequence.held == len(sequence.tokens):
                self._prompt_read(sequence, decoded)
                events += self._judge(sequence, Draft(), row)
        return events

    def _draft(self, decoding: Seq[Sequence]) -> list[Draft]:
        """A draft for each sequence: what is owed, else what its course makes of what the drafters offer."""
        drafts = {s.id: s.owed for s in decoding}
        asked: dict[str, list[tuple[Sequence, DraftRequest]]] = {}
        for sequence in decoding:
            situation = self._situation(sequence)
            if sequence.owed.tokens:  # its drafter is still who drafted that
                sequence.owed.cut(situation.limit if situation else 0, Stop.CEILING)
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
            elif plan.pace is not None:
                request = self._request(sequence, situation.limit, plan.pace)
                asked.setdefault(plan.drafter, []).append((sequence, request))
        for name, pairs in asked.items():
            answers = self._drafters[name].draft([request for _, request in pairs])
            drafts |= {s.id: draft for (s, _), draft in zip(pairs, answers, strict=True)}
        for sequence in decoding:
            draft = drafts[sequence.id]
            if draft.width and draft is not sequence.owed:
                self._courses[sequence.id].cut(draft)
            _cut_at_end(draft, self._vocabulary.is_eog)
            if sequence.sampler.grammar is not None:
                _cut_at_forbidden(draft, sequence.sampler.grammar)
        return [drafts[s.id] for s in decoding]

    def _situation(self, sequence: Sequence) -> Situation | None:
        """None where there is nothing to gain: the last token of a budget needs no draft."""
        running = len(self._running)  # whoever reads a prompt needs a token and a row of the batch too
        remaining = sequence.budget(self._main.context_size)
        limit = min(
            sequence.request.speculation.ceiling,
            remaining - 1,
            self._main.max_rows // running - 1,
            self._main.batch_size // running - (len(sequence.tokens) - sequence.held),
        )
        if limit < 1:
            return None
        length = len(sequence.tokens)
        unread = {name: d.unread(sequence.slot, length) for name, d in self._drafters.items() if not d.free}
        return Situation(limit, sequence.held, remaining, running - 1, unread)

    @staticmethod
    def _request(sequence: Sequence, limit: int, pace: Pace) -> DraftRequest:
        return DraftRequest(sequence.slot, sequence.tokens, limit, pace, sequence.sampler)

    def _course(self, settings: SpeculationSettings, seed: int) -> Course | None:
        names = [name for name in settings.drafters or self._drafters if name in self._drafters]
        free = [name for name in names if self._drafters[name].free]
        if settings.mode == "off" or not names:
            return None
        if settings.mode == "fixed":
            first = names if settings.drafters else names[:1]
            return FixedCourse(first, free, settings.draft_min, settings.p_min)
        return AutoCourse(self._knowledge, free, [name for name in names if name not in free], Random(seed))

    @staticmethod
    def _feed(sequence: Sequence, draft: Draft) -> Feed:
        tokens = sequence.tokens[sequence.held :] + draft.tokens[: draft.width]
        return Feed(sequence.slot, tokens, sequence.held, rows=draft.width + 1, draft=draft.width)

    @staticmethod
    def _prompt_feed(sequence: Sequence, share: int) -> Feed:
        end = sequence.held + share
        rows = 1 if end == len(sequence.tokens) else 0
        return Feed(sequence.slot, sequence.tokens[sequence.held : end], sequence.held, rows=rows)

    @staticmethod
    def _prompt_read(sequence: Sequence, now: float) -> None:
        sequence.phase = Phase.DECODING
        if sequence.predicted == 0:
            sequence.prompt_done = sequence.last_emitted = now
            sequence.stats.prompt_tokens = len(sequence.request.prompt)
            sequence.stats.prompt_seconds = now - sequence.submitted

    def _judge(self, sequence: Sequence, draft: Draft, rows: Row) -> list[Event]:
        """Settle one sequence; an error that is its own ends it alone."""
        try:
            return self._settle(sequence, draft, rows)
        except LlamaspecError as error:
            return self._finish(sequence, FinishReason.ERROR, error)

    def _settle(self, sequence: Sequence, draft: Draft, rows: Row) -> list[Event]:
        """Take over what the main model made of a draft; cut both KV caches back to it."""
        before = len(sequence.tokens)
        verdict = verify(rows, draft, sequence.sampler, sequence.tokens, self._vocabulary.is_eog)
        kept = verdict.tokens[: sequence.budget(self._main.context_size)]
        pieces: list[Piece] = []
        for position, token in enumerate(kept):
            sequence.tokens.append(token)
            if self._vocabulary.is_eog(token):
                sequence.finish = FinishReason.STOP
                break
            pieces += sequence.text.push(self._vocabulary.piece(token), token, position < verdict.accepted)
            if sequence.text.stopped:
                sequence.finish = FinishReason.STOP
                break
        if sequence.finish is None and sequence.budget(self._main.context_size) <= 0:
            sequence.finish = FinishReason.LENGTH
        emitted = len(sequence.tokens) - before
        sequence.owed = draft.owed() if verdict.tokens == draft.tokens[: draft.width + 1] else Draft()
        right = before + min(verdict.accepted, max(0, emitted - 1))
        if right < sequence.held:
            sequence.held = self._main.truncate(sequence.slot, right)
            if len(sequence.tokens) - sequence.held > self._most_pending:
                sequence.phase = Phase.PREFILL  # the past could not be cut there: most of it is read again
        for drafter in self._drafters.values():
            drafter.settle(sequence.slot, sequence.tokens)
        if course := self._courses.get(sequence.id):
            course.learn(draft, verdict.tokens, sequence.stats.last_draft_seconds)
        if emitted:
            self._count(sequence, draft, min(verdict.accepted, emitted), emitted)
        events: list[Event] = [self._text_event(sequence, piece) for piece in pieces]
        if sequence.request.explain:
            new = tuple(sequence.tokens[before:])
            events.append(_round_event(sequence, draft, min(verdict.accepted, emitted), new))
        if sequence.finish is not None:
            events += self._finish(sequence, sequence.finish)
        return events

    def _count(self, sequence: Sequence, draft: Draft, accepted: int, emitted: int) -> None:
        now = self._clock()
        stats = sequence.stats
        if stats.time_to_first_token is None:
            stats.time_to_first_token = now - sequence.submitted
        sources = [evidence.source for evidence in draft.evidence[: draft.width]]
        stats.record_draft(sequence.drafter, sources, accepted)
        if draft.stopped is not None and sequence.drafter:
            stats.stops[draft.stopped] += 1
        if stats.predicted_tokens:
            stats.record_plain(emitted, self._knowledge.prices.main.plain_seconds(sequence.held))
        stats.record_tokens(emitted, now - sequence.last_emitted)
        stats.predicted_seconds = now - sequence.prompt_done
        sequence.last_emitted = now

    @staticmethod
    def _text_event(sequence: Sequence, piece: Piece) -> TextEvent:
        return TextEvent(sequence.id, piece.text, piece.tokens, piece.drafted)

    def _finish(
        self, sequence: Sequence, reason: FinishReason, error: Exception | None = None
    ) -> list[Event]:
        """The one end of every request: its last text, its terminal event, its slot free and empty."""
        events: list[Event] = [self._text_event(sequence, piece) for piece in sequence.text.finish()]
        if sequence.phase is Phase.WAITING:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            self._main.truncate(sequence.slot, 0)
            for drafter in self._drafters.values():
                drafter.end(sequence.slot)
            self._free.append(sequence.slot)
        self._courses.pop(sequence.id, None)
        sequence.phase = Phase.DONE
        sequence.finish = reason
        return [*events, FinishEvent(sequence.id, reason, error)]


def _round_event(sequence: Sequence, draft: Draft, accepted: int, emitted: tuple[int, ...]) -> RoundEvent:
    drafted = zip(draft.tokens, draft.evidence, strict=True)
    return RoundEvent(
        sequence.id,
        sequence.drafter,
        tuple(DraftedToken(token, evidence.source, evidence.guess) for token, evidence in drafted),
        draft.width,
        accepted,
        emitted,
        draft.stopped,
    )


def _cut_at_end(draft: Draft, is_eog: Callable[[int], bool]) -> None:
    """Nothing is emitted behind an end of generation, which itself needs a row but not the main model."""
    for position, token in enumerate(draft.tokens[: draft.width]):
        if is_eog(token):
            draft.cut(position, Stop.END)
            return


def _cut_at_forbidden(draft: Draft, grammar: Grammar) -> None:
    """Nothing from the first token that the grammar forbids needs the main model."""
    ahead = grammar.copy()
    for position, token in enumerate(draft.tokens[: draft.width]):
        if not ahead.allowed(np.array([token]))[0]:
            draft.cut(position, Stop.GRAMMAR)
            return
        ahead.accept(token)
