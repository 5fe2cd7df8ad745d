"""Fakes of the engine's seams: a model whose logits are a function of the text, and what goes with it.

They are strict: whatever a real model would take amiss, or silently compute something else for, is an
AssertionError here, which the engine does not catch.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from llamaspec.decode.ports import Draft, DraftRequest, Evidence, Feed, Row
from llamaspec.errors import GrammarError

_IDS = 64  # logits are drawn for so many ids and cut to the vocabulary: sizes differ, shared ids agree


@lru_cache(maxsize=1 << 16)
def _normal(seed: int, text: tuple[int, ...]) -> NDArray[np.float64]:
    return np.random.default_rng([seed, len(text), *text]).standard_normal(_IDS)


class FakeBackend:
    """A model whose logits after a text are normal random numbers seeded by it.

    Two with the same `seed` agree but for `noise`. `bias` is added to the logits of single ids.
    `rollback` says how the past is cut: "any" place, "none" (all is lost), or "start" (back to before
    the last batch that could be rolled back). `failures` maps the number of a decode to its error.
    """

    def __init__(
        self,
        vocab_size: int = 12,
        *,
        seed: int = 0,
        noise: float = 0.0,
        scale: float = 2.0,
        bias: Mapping[int, float] | None = None,
        context_size: int = 256,
        cells: int = 0,
        batch_size: int = 64,
        max_rows: int = 32,
        rollback: str = "any",
        failures: Mapping[int, Exception] | None = None,
    ) -> None:
        self.vocab_size = vocab_size
        self.context_size = context_size
        self.can_copy = rollback == "any"
        self.cells = cells or context_size
        self.batch_size = batch_size
        self.max_rows = max_rows
        self.held: dict[int, list[int]] = {}
        self.decodes = 0
        self.widest = 0
        self._seed, self._noise, self._scale = seed, noise, scale
        self._bias = np.zeros(_IDS)
        for token, value in (bias or {}).items():
            self._bias[token] = value
        self._rollback = rollback
        self._failures = dict(failures or {})
        self._solid: dict[int, int] = {}
        self._start: dict[int, int] = {}
        self._buffer: Row = np.zeros((0, vocab_size), np.float32)

    def logits(self, text: Sequence[int]) -> Row:
        key = tuple(text)
        row = _normal(self._seed, key)
        if self._noise:
            row = row + self._noise * _normal(self._seed + 1, key)
        return np.asarray((row * self._scale + self._bias)[: self.vocab_size], np.float32)

    def decode(self, feeds: Sequence[Feed]) -> list[Row]:
        self._check(feeds)
        self._buffer.fill(np.nan)  # whoever kept a row of the last decode shall notice
        self.decodes += 1
        if error := self._failures.get(self.decodes):
            raise error
        self.widest = max(self.widest, sum(len(feed.tokens) for feed in feeds))
        self._buffer = np.zeros((sum(feed.rows for feed in feeds), self.vocab_size), np.float32)
        views, at = [], 0
        for feed in feeds:
            held = self.held.setdefault(feed.sequence, [])
            if feed.draft < len(feed.tokens):
                self._solid[feed.sequence] = len(held) + len(feed.tokens) - feed.draft
                self._start[feed.sequence] = len(held)
            for number, token in enumerate(feed.tokens):
                held.append(int(token))
                row = number - (len(feed.tokens) - feed.rows)
                if row >= 0:
                    self._buffer[at + row] = self.logits(held)
            views.append(self._buffer[at : at + feed.rows])
            at += feed.rows
        return views

    def truncate(self, sequence: int, length: int) -> int:
        held = self.held.setdefault(sequence, [])
        assert 0 <= length <= max(len(held), 0), f"truncated to {length} of {len(held)}"
        solid = self._solid.get(sequence, 0)
        kept = self._rollback == "any" or length == 0 or length >= solid
        assert kept, f"rolled back to {length}, behind the promised {solid}"
        if self._rollback != "any" and length < len(held):
            length = min(self._start.get(sequence, 0), length) if self._rollback == "start" else 0
        del held[length:]
        self._solid[sequence] = min(solid, length)
        return length

    def copy(self, source: int, target: int, length: int) -> int:
        assert not self.held.get(target), "copied over a text"
        assert 0 < length <= len(self.held[source])
        if self._rollback != "any":
            return 0
        self.held[target] = self.held[source][:length]
        self._solid[target] = 0
        return length

    def _check(self, feeds: Sequence[Feed]) -> None:
        total = sum(len(held) for held in self.held.values()) + sum(len(feed.tokens) for feed in feeds)
        assert total <= self.cells, "more than the cache has cells"
        assert feeds, "an empty batch"
        assert len({feed.sequence for feed in feeds}) == len(feeds), "a sequence twice in a batch"
        assert sum(len(feed.tokens) for feed in feeds) <= self.batch_size, "too many tokens"
        assert sum(feed.rows for feed in feeds) <= self.max_rows, "too many rows"
        for feed in feeds:
            assert 0 <= feed.rows <= len(feed.tokens) > 0
            assert 0 <= feed.draft <= len(feed.tokens)
            assert feed.position == len(self.held.get(feed.sequence, [])), "a gap, or a token twice"
            assert feed.position + len(feed.tokens) <= self.context_size, "behind the context"
            assert all(0 <= token < self.vocab_size for token in feed.tokens), "a foreign token"


class FakeVocabulary:
    """Token i is written as the i-th of `pieces`, by default a letter; `eog` ends a generation."""

    def __init__(
        self, vocab_size: int = 12, eog: Sequence[int] = (0,), pieces: Sequence[bytes] | None = None
    ) -> None:
        self.vocab_size = vocab_size
        self.eog_tokens = tuple(eog)
        self._pieces = list(pieces or (bytes([ord("a") + token]) for token in range(vocab_size)))

    def is_eog(self, token: int) -> bool:
        return token in self.eog_tokens

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    def special_piece(self, token: int) -> bytes:
        return b"<end>" if self.is_eog(token) else self.piece(token)


class ScriptedDrafter:
    """Drafts `script(text)`, cut to the limit, without chance; holds the engine to a drafter's contract."""

    def __init__(
        self,
        script: Callable[[Sequence[int]], Sequence[int]],
        *,
        name: str = "script",
        free: bool = False,
        guess: float = 1.0,
    ) -> None:
        self.name = name
        self.free = free
        self._evidence = Evidence(name, guess)
        self._script = script
        self.texts: dict[int, list[int]] = {}

    def begin(self, sequence: int, common: int = 0, source: int = -1) -> None:
        assert sequence not in self.texts or source == sequence
        self.texts[sequence] = []

    def unread(self, sequence: int, length: int) -> int:
        return 0 if self.free else length - len(self.texts[sequence]) + 1

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        assert requests
        assert len({request.sequence for request in requests}) == len(requests)
        return [self._one(request) for request in requests]

    def settle(self, sequence: int, tokens: Sequence[int]) -> None:
        known = self.texts[sequence]
        assert len(tokens) > len(known) and list(tokens[: len(known)]) == known
        self.texts[sequence] = list(tokens)

    def end(self, sequence: int) -> None:
        del self.texts[sequence]

    def _one(self, request: DraftRequest) -> Draft:
        assert request.limit >= 1
        assert self.texts[request.sequence] == list(request.tokens)
        draft = Draft()
        for token in list(self._script(request.tokens))[: request.limit]:
            if request.pace.admits(self._evidence):
                draft.add(token, None, self._evidence)
        return draft


class Alternating:
    """A grammar: odd and even tokens in turn. After `last` tokens it allows nothing at all."""

    def __init__(self, parity: int = 1, last: int = 1 << 30) -> None:
        self._parity = parity
        self._last = last

    def allowed(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.asarray((tokens % 2 == self._parity) & (self._last > 0))

    def accept(self, token: int) -> None:
        if not self.allowed(np.array([token]))[0]:
            raise GrammarError(f"Token {token} is not allowed here.")
        self._parity ^= 1
        self._last -= 1

    def copy(self) -> "Alternating":
        return Alternating(self._parity, self._last)
