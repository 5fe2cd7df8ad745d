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
from typing import Protocol

import numpy as np

from llamaspec.closing import Closing
from llamaspec.control.auto import Knowledge
from llamaspec.decode.ports import Backend, Draft, Drafter, Feed, Row
from llamaspec.decode.sampling import Sampler, log_probabilities, post_log_probabilities
from llamaspec.decode.sequence import Phase, Request, Sequence
from llamaspec.decode.text import Piece, TextStream
from llamaspec.decode.verify import verify
from llamaspec.engine.drafting import Drafting, Room
from llamaspec.engine.scheduler import ReadingPace, share_batch
from llamaspec.engine.seating import Seating
from llamaspec.engine.slots import common_prefix
from llamaspec.errors import ClosedError, ContextError, LlamaspecError, UsageError
from llamaspec.events import (
    DraftedToken,
    Event,
    FinishEvent,
    FinishReason,
    ProgressEvent,
    PromptEvent,
    RoundEvent,
    TextEvent,
    TokenDetail,
)
from llamaspec.stats import Stats

# By how much of a round reading may stretch it while others decode: in the main model, and in a draft model.
_STRETCH, _STRETCH_OF_DRAFT = 1.0, 0.5
_WORTH_WAITING = 64  # tokens of a prompt that are not read twice
_LEAST_READING = 8  # tokens that a draft model may always evaluate: what a few rounds leave behind


class Vocabulary(Protocol):
    """What the engine needs to know of tokens."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eog_tokens(self) -> Seq[int]: ...

    def is_eog(self, token: int) -> bool: ...

    def piece(self, token: int) -> bytes: ...

    def special_piece(self, token: int) -> bytes: ...


class Engine(Closing):
    """Generates for up to `slots` requests at a time; further ones wait in order.

    Alone, a prompt is read `prompt_chunk` tokens at a time, which bounds how long a cancel waits; that is
    fixed, as chunks of other sizes give logits that differ in rounding. Beside sequences that decode it is
    read in such chunks as these can bear. The backends have `spare` sequences more than slots, which keep
    texts that have ended; where the KV cache runs full these go first, and then the youngest request, which
    waits and is read again. `drafters` are told of every sequence; which of them drafts in a round is up to
    the request's settings. What mode `auto` knows and learns is in `knowledge`. `clock` gives seconds.
    """

    def __init__(
        self,
        main: Backend,
        vocabulary: Vocabulary,
        drafters: Seq[Drafter] = (),
        *,
        knowledge: Knowledge | None = None,
        slots: int = 1,
        spare: int = 0,
        prompt_chunk: int = 512,
        clock: Callable[[], float] = time.perf_counter,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        if slots > min(main.batch_size, main.max_rows):
            raise UsageError(f"{slots} sequences need a token each in a batch of {main.batch_size}.")
        self.slots = slots
        self.context_size = main.context_size
        self.cells = main.cells
        self.failure: LlamaspecError | None = None
        self.decodes = 0
        self.slots_in_decodes = 0  # summed up over all decodes
        self._main = main
        self._vocabulary = vocabulary
        self._knowledge = knowledge or Knowledge()
        self._drafting = Drafting(drafters, self._knowledge)
        self._clock = clock
        self._on_close = on_close
        self._seating = Seating(main, self._drafting, slots + spare)
        self._most_pending = min(main.batch_size, main.max_rows) // slots  # tokens of a slot beside others
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._ids = itertools.count()
        self._prompt_chunk = prompt_chunk
        self._reading = ReadingPace(prompt_chunk, _STRETCH)
        self._draft_reading = ReadingPace(prompt_chunk, _STRETCH_OF_DRAFT)
        self._read_in_draft = False  # in the last round
        self._closed = False

    def check(self, request: Request) -> None:
        """Raise UsageError or ContextError for a request that can't be run. From any thread."""
        prompt = request.prompt
        if not prompt:
            raise UsageError("The prompt is empty.", "Give some text to go on from.")
        if len(prompt) >= self.context_size:
            raise ContextError(
                f"The prompt has {len(prompt)} tokens and the context {self.context_size}.",
                "Raise the context size (-c) or shorten the prompt.",
                prompt_tokens=len(prompt),
                context_size=self.context_size,
            )
        if min(prompt) < 0 or max(prompt) >= self._vocabulary.vocab_size:
            raise UsageError("The prompt holds a token id that is not in the vocabulary.")
        if request.seat is not None and not 0 <= request.seat < self.slots:
            raise UsageError(f"There is no slot {request.seat}.", f"Slots are 0 to {self.slots - 1}.")
        if request.post_sampling and request.grammar is not None:
            raise UsageError("The probabilities after sampling are not known within a grammar.")

    def submit(self, request: Request, stats: Stats | None = None) -> int:
        """Queue a request; its id. `stats`, where given, counts what happens. Raises what `check` raises."""
        self._check_open()
        self.check(request)
        sampling = request.sampling
        bias = dict(request.logit_bias)
        if sampling.ignore_eos:
            bias |= dict.fromkeys(self._vocabulary.eog_tokens, -np.inf)
        sequence = Sequence(
            id=next(self._ids),
            request=request,
            sampler=Sampler(
                sampling,
                secrets.randbits(64) if sampling.seed < 0 else sampling.seed,
                grammar=request.grammar,
                bias=bias,
                repeatable=request.repeatable,
            ),
            tokens=list(request.prompt),
            text=TextStream(sampling.stop),
            submitted=self._clock(),
            stats=stats or Stats(),
        )
        self._drafting.add(sequence)
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

    @property
    def running(self) -> Seq[Sequence]:
        """The requests that have a slot. To be looked at from other threads, too."""
        return tuple(self._running)

    @property
    def held(self) -> int:
        """Tokens in the main KV cache."""
        return sum(s.held for s in self.running) + self._seating.kept_tokens

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
        mine = self.submit(request, stats)
        try:
            while self.busy:
                for event in self.cancel(mine) if should_stop() else self.step():
                    if isinstance(event, FinishEvent) and event.error is not None:
                        raise event.error
                    yield event
        finally:
            self.cancel(mine)

    def step(self) -> list[Event]:
        """One round for every running sequence; what came of it.

        An error of the backend ends all sequences of the batch with an error event each, and stays in
        `failure`.
        """
        self._check_open()
        try:
            events = self._admit()
            return events + self._round() if self._running else events
        except LlamaspecError as error:
            self.failure = error
            return [
                event for s in list(self._running) for event in self._finish(s, FinishReason.ERROR, error)
            ]

    def logits(self, tokens: Seq[int]) -> Row:
        """What the main model makes of a text: a copy of its last row. Only while nothing is running."""
        self._check_open()
        if self.busy or not tokens:
            raise UsageError("Logits are read of a text that is not empty, while no request is running.")
        step = self._main.batch_size
        with self._seating.borrowed() as slot:
            for start in range(0, len(tokens), step):
                [rows] = self._main.decode([Feed(slot, tokens[start : start + step], start, rows=1)])
            row: Row = rows[-1].copy()
        return row

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

    def abandon(self) -> None:
        """Drop every request, without touching the backends: they are not to be trusted any more."""
        self._waiting.clear()
        self._running.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("The engine is closed.")

    # Room in the KV cache. Kept texts count for nothing: they make place whenever it is needed.

    def _admit(self) -> list[Event]:
        """Give places to those who wait, as long as the whole of their texts has room."""
        events: list[Event] = []
        while (found := self._next()) is not None:
            sequence, seat = found
            taken = sum(max(s.held, len(s.tokens)) + 1 for s in self._running)
            if self._running and taken + len(sequence.tokens) + 1 > self.cells:
                break
            self._waiting.remove(sequence)
            sequence.seat = seat
            sequence.phase = Phase.PREFILL
            self._running.append(sequence)
            self._seating.take(sequence, self._running[:-1])
            if sequence.predicted == 0:
                sequence.stats.queue_seconds = self._clock() - sequence.submitted
                sequence.stats.cached_tokens = sequence.held
                events += _progress(sequence, 0.0)
        return events

    def _next(self) -> tuple[Sequence, int] | None:
        """The first that waits for a place that is free, and the place."""
        free = [seat for seat in range(self.slots) if all(s.seat != seat for s in self._running)]
        for sequence in self._waiting if free else ():
            wanted = sequence.request.seat
            if (wanted is None or wanted in free) and not self._is_being_read(sequence):
                return sequence, free[0] if wanted is None else wanted
        return None

    def _is_being_read(self, sequence: Sequence) -> bool:
        """Whether another is reading what this one begins with, which is taken over when that is done."""
        if not (self._main.can_copy and sequence.request.reuses):
            return False
        reading = (s for s in self._running if s.phase is Phase.PREFILL)
        return any(common_prefix(sequence.tokens[:-1], s.tokens) >= s.held + _WORTH_WAITING for s in reading)

    def _make_room(self) -> int:
        """Tokens that this round may add to the KV cache: one for each decoding sequence at least."""
        while True:
            free = self.cells - sum(s.held for s in self._running)
            if free >= sum(len(s.tokens) - s.held for s in self._running if s.phase is Phase.DECODING):
                return free
            self._postpone(self._running[-1])

    def _postpone(self, sequence: Sequence) -> None:
        """Take the slot of a request that has to wait: its text is read again later."""
        self._running.remove(sequence)
        self._seating.leave(sequence, keep=False)
        sequence.phase = Phase.WAITING
        sequence.prompt_details.clear()
        self._waiting.insert(0, sequence)

    # A round.

    def _round(self) -> list[Event]:
        started = self._clock()
        free = self._make_room()
        decoding = [s for s in self._running if s.phase is Phase.DECODING]
        prefilling = [s for s in self._running if s.phase is Phase.PREFILL]
        pending = sum(len(s.tokens) - s.held for s in decoding)
        chunk = self._prompt_chunk
        if decoding:
            look = self._reading.due and not self._read_in_draft
            chunk = min(0 if look else self._reading.tokens(self._reading.usual), free - pending)
        chunk = min(chunk, sum(len(s.tokens) - s.held for s in prefilling))
        room = self._room(len(decoding), pending, chunk, free)
        drafts, self._read_in_draft = self._drafting.draft(
            decoding, room, self._budget, self._vocabulary.is_eog
        )
        drafted = self._clock()

        feeds = [self._feed(s, draft) for s, draft in zip(decoding, drafts, strict=True)]
        served = self._share(prefilling, feeds, min(chunk, free - sum(len(feed.tokens) for feed in feeds)))
        feeds += [self._prompt_feed(s, share) for s, share in served]
        self._seating.make_room(free - sum(len(feed.tokens) for feed in feeds))
        rows = self._main.decode(feeds)
        decoded = self._clock()
        self.decodes += 1
        self.slots_in_decodes += len(feeds)

        plain = self._plain_seconds(decoding, len(decoding) + sum(share for _, share in served))

        events: list[Event] = []
        for sequence, draft, feed, row in zip(decoding, drafts, feeds, rows, strict=False):
            sequence.held += len(feed.tokens)
            sequence.stats.record_round(drafted - started, decoded - drafted)
            sequence.stats.last_plain_seconds = plain
            events += self._judge(sequence, draft, row)
        for (sequence, share), row in zip(served, rows[len(decoding) :], strict=True):
            events += self._read(sequence, share, row, decoded)
        if decoding:
            self._draft_reading.learn(room.reading if self._read_in_draft else 0, drafted - started)
            if not self._read_in_draft:
                self._reading.learn(sum(share for _, share in served), self._clock() - started)
        return events

    def _budget(self, sequence: Sequence) -> int:
        return sequence.budget(self.context_size)

    def _plain_seconds(self, decoding: Seq[Sequence], width: int) -> float:
        """What this round would have taken without drafts; 0: nobody knows."""
        depth = max((s.held for s in decoding), default=0)
        curve = self._knowledge.prices.main
        return curve.seconds(width, depth) if curve.plain_seconds(depth) else 0.0

    def _room(self, decoding: int, pending: int, chunk: int, free: int) -> Room:
        """What a round has place for in which so many sequences decode and `chunk` prompt tokens are read."""
        running = len(self._running)  # whoever reads a prompt needs a token and a row of the batch too
        limit = min(
            self._main.max_rows // running - 1,
            (free - pending - chunk) // max(1, decoding),
        )
        reading = self._prompt_chunk
        if decoding > 1:
            reading = max(_LEAST_READING, self._draft_reading.tokens(self._reading.usual))
        return Room(limit, self._main.batch_size // running, chunk, running - 1, reading)

    def _share(self, prefilling: Seq[Sequence], feeds: Seq[Feed], chunk: int) -> list[tuple[Sequence, int]]:
        """Which prompts are read in this round, and how many tokens of each."""
        shares = share_batch(
            self._main.batch_size,
            (len(feed.tokens) for feed in feeds),
            (len(s.tokens) - s.held for s in prefilling),
            chunk,
        )
        rows = self._main.max_rows - sum(feed.rows for feed in feeds)
        served = []
        for sequence, share in zip(prefilling, shares, strict=True):
            wanted = share if sequence.request.prompt_logprobs is not None else 1
            if (granted := min(share, rows) if wanted > 1 else share) > 0 and rows > 0:
                rows -= min(wanted, rows)
                served.append((sequence, granted))
        return served

    @staticmethod
    def _feed(sequence: Sequence, draft: Draft) -> Feed:
        tokens = sequence.tokens[sequence.held :] + draft.tokens[: draft.width]
        return Feed(sequence.slot, tokens, sequence.held, rows=draft.width + 1, draft=draft.width)

    @staticmethod
    def _prompt_feed(sequence: Sequence, share: int) -> Feed:
        end = sequence.held + share
        rows = 1 if end == len(sequence.tokens) else 0
        if sequence.request.prompt_logprobs is not None:
            rows = share
        return Feed(sequence.slot, sequence.tokens[sequence.held : end], sequence.held, rows=rows)

    def _read(self, sequence: Sequence, share: int, rows: Row, now: float) -> list[Event]:
        """So many tokens more of a text are held; once all are, its first token is chosen."""
        events: list[Event] = []
        count = sequence.request.prompt_logprobs
        if count is not None and sequence.predicted == 0:
            ahead = sequence.tokens[sequence.held + 1 : sequence.held + 1 + share]
            for row, token in zip(rows, ahead, strict=False):
                sequence.prompt_details.append(
                    TokenDetail(token, "", 0, *log_probabilities(row, token, count))
                )
        sequence.held += share
        if sequence.predicted == 0:
            events += _progress(sequence, now - sequence.submitted - sequence.stats.queue_seconds)
        if sequence.held < len(sequence.tokens):
            return events
        sequence.phase = Phase.DECODING
        if sequence.predicted == 0:
            stats = sequence.stats
            sequence.prompt_done = sequence.last_emitted = now
            stats.prompt_tokens = len(sequence.request.prompt)
            stats.prompt_seconds = now - sequence.submitted - stats.queue_seconds
            if count is not None:
                events.append(PromptEvent(sequence.id, tuple(sequence.prompt_details)))
        owed = sequence.owed  # by a text that had to be read again
        owed.width = 0
        return events + self._judge(sequence, owed, rows[-1:])

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
        kept = verdict.tokens[: self._budget(sequence)]
        spell = self._vocabulary.special_piece if sequence.request.special else self._vocabulary.piece
        pieces: list[Piece] = []
        for position, token in enumerate(kept):
            sequence.tokens.append(token)
            drafted = position < verdict.accepted
            if sequence.request.details or sequence.request.logprobs is not None:
                source = draft.evidence[position].source if drafted else ""
                sequence.details.append(_detail(sequence, token, source, rows[position]))
            if self._vocabulary.is_eog(token):
                sequence.finish = FinishReason.STOP
                break
            pieces += sequence.text.push(spell(token), token, drafted)
            if sequence.text.stopped:
                sequence.finish = FinishReason.STOP
                break
        if sequence.finish is None and self._budget(sequence) <= 0:
            sequence.finish = FinishReason.LENGTH
        emitted = len(sequence.tokens) - before
        sequence.owed = draft.owed() if verdict.tokens == draft.tokens[: draft.width + 1] else Draft()
        right = before + min(verdict.accepted, max(0, emitted - 1))
        if right < sequence.held:
            sequence.held = self._main.truncate(sequence.slot, right)
            if len(sequence.tokens) - sequence.held > self._most_pending:
                sequence.phase = Phase.PREFILL  # the past could not be cut there: most of it is read again
        self._drafting.settle(sequence, draft, verdict.tokens)
        if emitted:
            self._count(sequence, draft, min(verdict.accepted, emitted), emitted)
        events: list[Event] = [_text_event(sequence, piece) for piece in pieces]
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
            stats.record_plain(emitted, stats.last_plain_seconds)
        stats.record_tokens(emitted, now - sequence.last_emitted)
        stats.predicted_seconds = now - sequence.prompt_done
        sequence.last_emitted = now

    def _finish(
        self, sequence: Sequence, reason: FinishReason, error: LlamaspecError | None = None
    ) -> list[Event]:
        """The one end of every request: its last text, its terminal event, its slot free."""
        events: list[Event] = [_text_event(sequence, piece) for piece in sequence.text.finish()]
        if sequence.details and not sequence.text.stopped:  # the end of generation, which has no text
            end = sequence.details.pop()
            events.append(TextEvent(sequence.id, "", (end.token,), bool(end.source), (end,)))
        if sequence.phase is Phase.WAITING:
            self._waiting.remove(sequence)
        else:
            self._running.remove(sequence)
            keep = sequence.request.cache_prompt and error is None and not self._closed
            self._seating.leave(sequence, keep=keep)
        self._drafting.remove(sequence)
        sequence.phase = Phase.DONE
        sequence.finish = reason
        return [*events, FinishEvent(sequence.id, reason, error, sequence.text.stopped_by)]


def _progress(sequence: Sequence, seconds: float) -> list[Event]:
    if not sequence.request.progress:
        return []
    total, cached = len(sequence.request.prompt), sequence.stats.cached_tokens
    return [ProgressEvent(sequence.id, total, cached, sequence.held, seconds)]


def _detail(sequence: Sequence, token: int, source: str, row: Row) -> TokenDetail:
    """Of the sequence's last token, for the row that it was judged by."""
    request = sequence.request
    chances: tuple[float | None, tuple[tuple[int, float], ...]] = (None, ())
    if request.logprobs is not None and request.post_sampling:
        drawn_from = sequence.sampler.distribution(row, sequence.tokens[:-1])
        chances = post_log_probabilities(drawn_from, token, request.logprobs)
    elif request.logprobs is not None:
        chances = log_probabilities(row, token, request.logprobs)
    return TokenDetail(token, source, sequence.stats.rounds + 1, *chances)


def _text_event(sequence: Sequence, piece: Piece) -> TextEvent:
    details = tuple(sequence.details[: len(piece.tokens)])
    del sequence.details[: len(piece.tokens)]
    return TextEvent(sequence.id, piece.text, piece.tokens, piece.drafted, details)


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
