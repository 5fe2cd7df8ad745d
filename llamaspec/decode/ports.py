"""The seams of the engine: what it needs of a model, of a drafter and of a grammar.

`llamaspec.native` implements them over llama.cpp; the tests have fakes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]
"""Logits of one position, shape [vocab]; rows of several positions are [rows, vocab]."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Tokens to append to one sequence of a backend.

    `position` is where the first one goes: the number of tokens that the sequence holds. Logits are
    wanted for the last `rows` tokens, of which the last `draft` may be rolled back afterwards.
    """

    sequence: int
    tokens: Sequence[int]
    position: int
    rows: int = 0
    draft: int = 0


class Backend(Protocol):
    """A model with a KV cache for several sequences.

    `context_size` is in tokens and counts for each sequence, `cells` for all of them together. One `decode`
    takes `batch_size` tokens at most, and gives `max_rows` rows of logits. `can_copy`: `copy` works.
    """

    vocab_size: int
    can_copy: bool
    context_size: int
    cells: int
    batch_size: int
    max_rows: int

    def decode(self, feeds: Sequence[Feed]) -> list[Row]:
        """Evaluate all feeds in one batch.

        Returns for each feed its logits, shape [rows, vocab]: views into memory of the backend, valid
        until its next `decode`. Raises DecodeError or OutOfMemoryError with the sequences as before
        the call, or DecodeAborted, after which `truncate` tells what is held.
        """
        ...

    def truncate(self, sequence: int, length: int) -> int:
        """Forget all but the first `length` tokens; the number that is really kept, at most `length`.

        Fewer are kept where the past can't be cut at any place: the caller feeds the rest again.
        """
        ...

    def copy(self, source: int, target: int, length: int) -> int:
        """Let an empty sequence hold the first `length` tokens of another; how many it really holds."""
        ...


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution over tokens, zero outside of `ids`.

    `ids` and `probs` have the same shape [n], n >= 1; `probs` are float64, positive and sum to 1.
    """

    ids: NDArray[np.int64]
    probs: NDArray[np.float64]


class Stop(StrEnum):
    """Why a draft is no wider."""

    GAIN = "expected gain"  # a token more would cost more than it is expected to earn
    P_MIN = "p-min"
    CEILING = "ceiling"  # draft-max, the end of the budget, or the room in the batch
    CONTEXT = "context"  # the draft model's
    MATCH = "no match"  # nothing is known that would follow
    GRAMMAR = "grammar"
    END = "end"  # of generation: nothing comes behind it
    SHORT = "draft-min"
    READING = "reading"  # the draft model is still at the prompt


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a draft token before the main model has seen it.

    `guess` is the source's own estimate (0 to 1) that the token is kept if those before it are. Tokens of
    one `source` and `bucket` are alike: what becomes of them is counted together. It must not depend on
    which token was drawn, where one is drawn by chance.
    """

    source: str
    guess: float
    bucket: int = 0


@dataclass(slots=True)
class Draft:
    """Tokens proposed for one sequence.

    `proposals[i]` is the distribution that `tokens[i]` was drawn from, or None where it was chosen
    without chance; `evidence[i]` is what speaks for it. The first `width` tokens go through the main
    model. A draft may be cut after tokens were drawn; those behind the cut stay in `tokens`, and the first
    of them is judged by the last row, which costs nothing. Where it is kept the rest is owed to the next
    round: whether a drawn token is judged must not depend on what was drawn, or the output would be
    biased (`decode.verify`). `stopped` says why it is no wider.
    """

    tokens: list[int] = field(default_factory=list)
    proposals: list[Distribution | None] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    width: int = 0
    stopped: Stop | None = None

    def add(self, token: int, drawn_from: Distribution | None, evidence: Evidence) -> None:
        """One token more, to go through the main model."""
        self.tokens.append(token)
        self.proposals.append(drawn_from)
        self.evidence.append(evidence)
        self.width = len(self.tokens)

    def cut(self, width: int, why: Stop) -> None:
        """Let only the first `width` tokens go through the main model."""
        if width < self.width:
            self.width, self.stopped = width, why

    def owed(self) -> "Draft":
        """What is still to be judged when `width + 1` tokens were kept: only what was drawn by chance."""
        rest = slice(self.width + 1, None)
        if all(q is None for q in self.proposals[rest]):
            return Draft()
        tokens = self.tokens[rest]
        return Draft(tokens, self.proposals[rest], self.evidence[rest], len(tokens))


@dataclass(frozen=True, slots=True)
class Proposal:
    """A draft token, what it was drawn from, and how sure the draft model is of its best token (0 to 1)."""

    token: int
    drawn_from: Distribution | None
    confidence: float


class Proposer(Protocol):
    """How a sequence draws draft tokens: its sampling settings and its source of chance."""

    def propose(self, row: Row, history: Sequence[int]) -> Proposal | None:
        """A token for the draft model's logits after `history`; None where they are not numbers."""
        ...


class Pace(Protocol):
    """How far one draft goes. A drafter asks it; within the request's limit it is obeyed.

    `refusal` is why a draft ends where a token is not admitted.
    """

    @property
    def refusal(self) -> Stop: ...

    def admits(self, evidence: Evidence) -> bool:
        """Whether a token for which this speaks is added; otherwise the draft ends before it."""
        ...

    def goes_on(self, draft: Draft) -> bool:
        """Whether a token more is worth an evaluation of the draft model; asked once there is a first."""
        ...

    def ahead(self, guesses: Sequence[Evidence]) -> int:
        """How many guessed tokens the draft model evaluates along with the last one."""
        ...


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Draft at most `limit` (>= 1) tokens after `tokens`, the whole text of the sequence so far."""

    sequence: int
    tokens: Sequence[int]
    limit: int
    pace: Pace
    proposer: Proposer
    reading: int = 1 << 30
    """Tokens of the text that may be evaluated in this round before the first draft token is there."""


class Drafter(Protocol):
    """Proposes tokens. Told when a sequence begins, how its text goes on, and when it ends.

    `free` drafters evaluate no model: they are asked in every round, and what they offer may go unused.
    """

    name: str
    free: bool

    def begin(self, sequence: int, common: int = 0, source: int = -1) -> None:
        """A sequence starts. Its first `common` tokens are those of the sequence `source`, or of its own
        last text where that is `source`; anything else that is known of it no longer holds.
        """
        ...

    def unread(self, sequence: int, length: int) -> int:
        """Tokens of a text of `length` that are to be evaluated before the first draft token is there."""
        ...

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """One draft for each request, possibly empty; the sequences are distinct."""
        ...

    def settle(self, sequence: int, tokens: Sequence[int]) -> None:
        """What the sequence's text is after verification."""
        ...

    def end(self, sequence: int) -> None:
        """Forget the sequence."""
        ...


class Lookup(Protocol):
    """Guesses one token at a time from texts, at no price worth counting."""

    def follow(self, sequence: int, text: Sequence[int]) -> tuple[int, Evidence] | None:
        """What may come after `text`: the sequence's own and what was drafted behind it."""
        ...


class Grammar(Protocol):
    """The state of a constraint on one sequence's text."""

    def allowed(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `tokens` may come next, shape [n]."""
        ...

    def accept(self, token: int) -> None:
        """Advance by a token that is allowed."""
        ...

    def copy(self) -> "Grammar":
        """The same state, to be advanced on its own."""
        ...
