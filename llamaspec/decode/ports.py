"""The seams of the engine: what it needs of a model, of a drafter and of a grammar.

`llamaspec.native` implements them over llama.cpp; the tests have fakes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
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

    `context_size` is in tokens and counts for each sequence; `batch_size` bounds the tokens of one
    `decode`, `max_rows` the logits rows of one.
    """

    vocab_size: int
    context_size: int
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


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution over tokens, zero outside of `ids`.

    `ids` and `probs` have the same shape [n], n >= 1; `probs` are float64, positive and sum to 1.
    """

    ids: NDArray[np.int64]
    probs: NDArray[np.float64]


@dataclass(slots=True)
class Draft:
    """Tokens proposed for one sequence.

    `proposals[i]` is the distribution that `tokens[i]` was drawn from, or None where it was chosen
    without chance. The first `width` tokens go through the main model. A draft may be cut after
    tokens were drawn; those behind the cut stay in `tokens`, and the first of them is judged by the
    last row, which costs nothing. Where it is kept the rest is owed to the next round: whether a
    drawn token is judged must not depend on what was drawn, or the output would be biased
    (`decode.verify`).
    """

    tokens: list[int] = field(default_factory=list)
    proposals: list[Distribution | None] = field(default_factory=list)
    width: int = 0

    def cut(self, width: int) -> None:
        """Let only the first `width` tokens go through the main model."""
        self.width = min(self.width, width)

    def owed(self) -> "Draft":
        """What is still to be judged when `width + 1` tokens were kept: only what was drawn by chance."""
        rest = self.proposals[self.width + 1 :]
        return Draft(self.tokens[self.width + 1 :], rest) if any(q is not None for q in rest) else Draft()


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


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Draft at most `limit` (>= 1) tokens after `tokens`, the whole text of the sequence so far."""

    sequence: int
    tokens: Sequence[int]
    limit: int
    min_tokens: int
    p_min: float
    proposer: Proposer


class Drafter(Protocol):
    """Proposes tokens. Told when a sequence begins, how its text goes on, and when it ends."""

    name: str

    def begin(self, sequence: int) -> None:
        """A sequence starts, with nothing known of it."""
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
