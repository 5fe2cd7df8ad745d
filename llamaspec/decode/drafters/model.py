"""Drafting with a smaller model that shares the main model's vocabulary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log2

from llamaspec.decode.ports import Backend, Draft, DraftRequest, Evidence, Feed, Row, Stop

Guess = Callable[[DraftRequest, Sequence[int]], list[int]]
"""Tokens that may follow the text of a request, worth evaluating along with its last one."""

_BUCKETS = 16


def no_guess(request: DraftRequest, text: Sequence[int]) -> list[int]:
    """Foresees nothing: every token is an evaluation of its own."""
    return []


class ModelDrafter:
    """Draft tokens from a draft model, all sequences in one batch per position.

    The draft's KV cache is kept between rounds and only cut back to what was accepted: no token is
    evaluated twice. A prompt is read when the first draft of its sequence is asked for, so that it
    doesn't delay the first token.
    """

    name = "model"
    free = False

    def __init__(self, backend: Backend, vocab_size: int, stand_in: int = 0, chunk: int = 512) -> None:
        """`vocab_size` is the main model's: ids above it are never drafted.

        Ids that the draft model doesn't know are read as `stand_in`. A prompt is read `chunk` tokens a round,
        and its sequence drafts when that is done: no round is long.
        """
        self._backend = backend
        self._vocab_size = vocab_size
        self._stand_in = stand_in
        self._chunk = chunk
        self._held: dict[int, int] = {}

    def begin(self, sequence: int, common: int = 0, source: int = -1) -> None:
        if source == sequence:
            self._keep(sequence, common)
            return
        self.end(sequence)
        held = min(common, self._held.get(source, 0))
        self._held[sequence] = self._backend.copy(source, sequence, held) if held else 0

    def unread(self, sequence: int, length: int) -> int:
        return length - self._held[sequence]

    def draft(self, requests: Sequence[DraftRequest], guess: Guess = no_guess) -> list[Draft]:
        """As `Drafter.draft`; what `guess` foresees is evaluated in one go as far as it comes true."""
        going = [_Going(request, list(request.tokens), guess) for request in requests]
        active = [one for one in going if self._can_begin(one, len(requests))]
        while active:
            for one in active:
                one.look_ahead(self._room(one, len(requests)))
            fed = self._decode([self._feed(one) for one in active])
            active = [one for one, rows in zip(active, fed, strict=True) if self._extend(one, rows)]
        return [one.draft for one in going]

    def settle(self, sequence: int, tokens: Sequence[int]) -> None:
        # Everything but the last token was drafted and accepted or read before; the last one is new.
        self._keep(sequence, len(tokens) - 1)

    def end(self, sequence: int) -> None:
        # Also where nothing seems held: a decode that was broken off may have left some of its tokens.
        if self._held.pop(sequence, None) is not None:
            self._backend.truncate(sequence, 0)

    def _extend(self, one: "_Going", rows: Row) -> bool:
        """Add the tokens that follow by these rows; whether to go on after them."""
        goes_on = held = True
        for position, row in enumerate(rows):
            token = one.propose(row[: self._vocab_size])
            if token is None:
                goes_on = False
                break
            held = one.ahead[position : position + 1] == [token]
            goes_on = self._may_go_on(one)
            if not (held and goes_on):
                break
        self._keep(one.request.sequence, len(one.text) - (not held))
        return goes_on

    def _may_go_on(self, one: "_Going") -> bool:
        draft = one.draft
        if len(draft.tokens) >= one.request.limit:
            draft.stopped = Stop.CEILING
        elif len(one.text) >= self._backend.context_size:
            draft.stopped = Stop.CONTEXT
        elif not one.request.pace.goes_on(draft):
            draft.stopped = Stop.GAIN
        return draft.stopped is None

    def _can_begin(self, one: "_Going", sharing: int) -> bool:
        """Whether what is unread fits a shared batch; a chunk of it is read where it does not."""
        request = one.request
        if len(request.tokens) >= self._backend.context_size:
            one.draft.stopped = Stop.CONTEXT
            return False
        start = self._held[request.sequence]
        unread = len(request.tokens) - start
        most = min(self._chunk, request.reading)
        if unread <= min(most, self._share(sharing)):
            return True
        end = start + min(most, self._backend.batch_size, unread - 1)
        known = self._known(request.tokens[start:end])
        self._decode([Feed(request.sequence, known, start)])
        one.draft.stopped = Stop.READING
        return False

    def _share(self, sharing: int) -> int:
        return max(1, self._backend.batch_size // sharing)

    def _room(self, one: "_Going", sharing: int) -> int:
        """How many guesses fit beside what the draft model has yet to read."""
        unread = len(one.text) - self._held[one.request.sequence]
        return min(
            self._share(sharing) - unread,
            self._backend.max_rows // sharing - 1,
            self._backend.context_size - len(one.text),
            one.request.limit - len(one.draft.tokens) - 1,
        )

    def _feed(self, one: "_Going") -> Feed:
        sequence = one.request.sequence
        start = self._held[sequence]
        tokens = self._known([*one.text[start:], *one.ahead])
        settled = max(0, len(one.request.tokens) - start)
        return Feed(sequence, tokens, start, 1 + len(one.ahead), len(tokens) - settled)

    def _known(self, tokens: Sequence[int]) -> list[int]:
        return [token if token < self._backend.vocab_size else self._stand_in for token in tokens]

    def _decode(self, feeds: Sequence[Feed]) -> list[Row]:
        rows = self._backend.decode(feeds)
        for feed in feeds:
            self._held[feed.sequence] += len(feed.tokens)
        return rows

    def _keep(self, sequence: int, length: int) -> None:
        if length < self._held[sequence]:
            self._held[sequence] = self._backend.truncate(sequence, length)


@dataclass(slots=True)
class _Going:
    """A draft in the making: `text` is the request's with what was drafted, `ahead` guessed to follow it."""

    request: DraftRequest
    text: list[int]
    guess: Guess
    draft: Draft = field(default_factory=Draft)
    ahead: list[int] = field(default_factory=list)

    def look_ahead(self, room: int) -> None:
        self.ahead = self.guess(self.request, self.text)[:room] if room > 0 else []

    def propose(self, row: Row) -> int | None:
        """Add the token that follows, unless the model is too unsure; None where it is not."""
        proposal = self.request.proposer.propose(row, self.text)
        if proposal is None:
            self.draft.stopped = Stop.P_MIN
            return None
        evidence = Evidence("model", proposal.confidence, confidence_bucket(proposal.confidence))
        if not self.request.pace.admits(evidence):
            self.draft.stopped = self.request.pace.refusal
            return None
        self.draft.add(proposal.token, proposal.drawn_from, evidence)
        self.text.append(proposal.token)
        return proposal.token


def confidence_bucket(confidence: float) -> int:
    """0 to 15, even in the logarithm of the odds from 1:8 to 256:1: finest towards 1, where most are."""
    odds = confidence / max(1e-9, 1.0 - confidence)
    return min(_BUCKETS - 1, max(0, int((log2(max(odds, 1e-9)) + 3.0) * _BUCKETS / 11.0)))
