"""From logits to a token: penalties, grammar, top-k, top-p, min-p, temperature.

The order and the meaning of each are llama.cpp's, where top-p and min-p look at the distribution
before temperature. A grammar filters what the truncations have left; only where it allows none of
that does it filter the whole vocabulary first, which costs milliseconds. What counts for being
lossless is that plain and speculative decoding use this one definition.

A vocabulary has some 150 k entries, so nothing here sorts a row, and a softmax over a whole row is
taken only when top-k is off and top-p is on: a threshold below the maximum finds the few candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from llamaspec.decode.ports import Distribution, Grammar, Row
from llamaspec.errors import DecodeError, GrammarError
from llamaspec.settings import SamplingSettings

_FIRST_MARGIN = 8.0  # logits below the maximum; e^-8 is 0.03 % of the most probable token
_GRAMMAR_GLANCE = 64  # candidates that a grammar is asked about before the whole vocabulary is


class Sampler:
    """Chooses tokens for one sequence: its settings, its penalties and its random numbers.

    `banned` are tokens that must never come (end of generation, under `ignore_eos`).
    """

    def __init__(
        self,
        settings: SamplingSettings,
        seed: int,
        *,
        grammar: Grammar | None = None,
        banned: Sequence[int] = (),
    ) -> None:
        self.greedy = settings.greedy
        self.grammar = grammar
        self._settings = settings
        self._banned = np.asarray(banned, dtype=np.int64)
        self._penalised = settings.repeat_last_n != 0 and (
            settings.repeat_penalty != 1.0
            or settings.presence_penalty != 0.0
            or settings.frequency_penalty != 0.0
        )
        self._random = np.random.Generator(np.random.PCG64(seed))

    def choose(self, row: Row, history: Sequence[int]) -> int:
        """The next token after `history` for the main model's logits."""
        return self.best(row, history) if self.greedy else self.draw(self.distribution(row, history))

    def best(self, row: Row, history: Sequence[int]) -> int:
        """The most probable token that may come; of equals the lowest id."""
        with self._adjusted(row, history):
            best = int(row.argmax())
            _check_peak(row[best])
            grammar = self.grammar
            if grammar is None or grammar.allowed(np.array([best]))[0]:
                return best
            glance = top_candidates(row, _GRAMMAR_GLANCE)
            glance = glance[grammar.allowed(glance)]
            if glance.size:
                return int(glance[0])
            everything = self._allowed_everywhere(grammar, row.size)
            return int(everything[row[everything].argmax()])

    def distribution(self, row: Row, history: Sequence[int], *, constrained: bool = True) -> Distribution:
        """The distribution that a token is drawn from; with `constrained`, within the grammar."""
        with self._adjusted(row, history):
            if self.greedy:
                return Distribution(np.array([self.best(row, ())]), np.ones(1))
            ids = self._truncated(row, None)
            grammar = self.grammar if constrained else None
            if grammar is not None:
                kept = ids[grammar.allowed(ids)]
                ids = kept if kept.size else self._truncated(row, self._allowed_everywhere(grammar, row.size))
            scaled = row[ids].astype(np.float64) / self._settings.temperature
        return Distribution(ids, softmax(scaled))

    def propose(self, row: Row, history: Sequence[int]) -> tuple[int, Distribution | None]:
        """A draft token: drawn as the main model would draw it, which makes acceptance likeliest."""
        if self.greedy:
            with self._adjusted(row, history):
                return int(row.argmax()), None
        drawn_from = self.distribution(row, history, constrained=False)
        return self.draw(drawn_from), drawn_from

    def draw(self, distribution: Distribution) -> int:
        """One token of a distribution, by inversion."""
        return _draw(distribution, self._random.random)

    def chance(self) -> float:
        """The next random number in [0, 1)."""
        return float(self._random.random())

    def accept(self, token: int) -> None:
        """Advance the grammar by an emitted token."""
        if self.grammar is not None:
            self.grammar.accept(token)

    @contextmanager
    def _adjusted(self, row: Row, history: Sequence[int]) -> Iterator[None]:
        """The row with bans and penalties in place. Only the few touched entries are put back after."""
        if not (self._penalised and history) and self._banned.size == 0:
            yield
            return
        # A draft model's vocabulary may be smaller than the one that these ids are from.
        banned = self._banned[self._banned < row.size]
        ids, counts = self._counts_in_window(history, row.size)
        saved, saved_banned = row[ids], row[banned]
        try:
            row[ids] = self._penalise(saved, counts)
            row[banned] = -np.inf
            yield
        finally:
            row[banned] = saved_banned
            row[ids] = saved

    def _counts_in_window(
        self, history: Sequence[int], vocab: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        last_n = self._settings.repeat_last_n
        window = () if not self._penalised else history if last_n < 0 else history[-last_n:]
        ids, counts = np.unique(np.asarray(window, dtype=np.int64), return_counts=True)
        return ids[ids < vocab], counts[ids < vocab]

    def _penalise(self, logits: Row, counts: NDArray[np.int64]) -> Row:
        repeat = np.float32(self._settings.repeat_penalty)
        scaled = np.where(logits <= 0, logits * repeat, logits / repeat)
        reduction = counts * self._settings.frequency_penalty + self._settings.presence_penalty
        return np.asarray(scaled - reduction, dtype=np.float32)

    def _truncated(self, row: Row, within: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Ids that top-k, top-p and min-p leave, the most probable first."""
        settings = self._settings
        peak = row.max()
        _check_peak(peak)
        if within is not None:
            order = np.argsort(-row[within], kind="stable")
            ids = within[order[: settings.top_k]] if settings.top_k else within[order]
        elif settings.top_k:
            ids = top_candidates(row, settings.top_k)
        elif settings.min_p > 0.0 and settings.top_p >= 1.0:
            ids = _descending(row, np.flatnonzero(row >= peak + np.log(settings.min_p)))
        else:
            ids = _descending(row, np.flatnonzero(row > -np.inf))
        logits = row[ids].astype(np.float64)
        probs = softmax(logits)
        keep = int(ids.size)
        if settings.top_p < 1.0:
            keep = min(keep, int(np.searchsorted(np.cumsum(probs), settings.top_p)) + 1)
        if settings.min_p > 0.0:
            keep = min(keep, int(np.count_nonzero(probs >= probs[0] * settings.min_p)))
        keep = min(keep, int(np.count_nonzero(probs > 0.0)))
        return ids[: max(keep, 1)]

    @staticmethod
    def _allowed_everywhere(grammar: Grammar, vocab: int) -> NDArray[np.int64]:
        everything = np.arange(vocab)
        allowed = everything[grammar.allowed(everything)]
        if allowed.size == 0:
            raise GrammarError(
                "The grammar allows no token of this vocabulary here.",
                "Check that the grammar can end, and that its texts can be written in the model's tokens.",
            )
        return allowed


def _check_peak(logit: float) -> None:
    """A row whose largest logit is NaN or infinite says nothing about the next token."""
    if not np.isfinite(logit):
        raise DecodeError(
            "The model's logits are not numbers.",
            "The file may be damaged, or a KV cache type or device too imprecise for it.",
        )


def top_candidates(row: Row, count: int) -> NDArray[np.int64]:
    """Ids of the `count` largest logits, descending, equal ones by id; shape [min(count, vocab)]."""
    count = min(count, row.size)
    top = float(row.max())
    margin = _FIRST_MARGIN
    ids = np.flatnonzero(row > top - margin)
    while ids.size < count and margin < 1e6:
        margin *= 2
        ids = np.flatnonzero(row > top - margin)
    if ids.size < count:
        ids = np.arange(row.size)
    if ids.size > 4 * count:  # a flat row: find the last value that counts before anything is sorted
        logits = row[ids]
        ids = ids[logits >= np.partition(logits, ids.size - count)[ids.size - count]]
    return _descending(row, ids)[:count]


def confidence(row: Row) -> float:
    """Probability of the best token among the ten best: what llama.cpp compares with p-min.

    0 where the row is not made of numbers.
    """
    top = float(row.max())
    if not np.isfinite(top):
        return 0.0
    near = row[np.flatnonzero(row > top - _FIRST_MARGIN)]
    if near.size > 10:
        near = np.partition(near, near.size - 10)[-10:]
    return float(1.0 / np.exp(near - top).sum())


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities; all alike where every logit is -inf."""
    top = logits.max()
    if top == -np.inf:
        return np.full(logits.shape, 1.0 / logits.size)
    weights = np.exp(logits - top)
    return np.asarray(weights / weights.sum())


def residual(p: Distribution, q: Distribution) -> Distribution | None:
    """The normalised positive part of p - q; None where q covers p up to rounding."""
    order = np.argsort(q.ids)
    at = np.clip(np.searchsorted(q.ids, p.ids, sorter=order), 0, q.ids.size - 1)
    covered = np.where(q.ids[order[at]] == p.ids, q.probs[order[at]], 0.0)
    rest = np.maximum(p.probs - covered, 0.0)
    total = rest.sum()
    return Distribution(p.ids, rest / total) if total > 0.0 else None


def probability(distribution: Distribution, token: int) -> float:
    at = np.flatnonzero(distribution.ids == token)
    return float(distribution.probs[at[0]]) if at.size else 0.0


def _draw(distribution: Distribution, chance: Callable[[], float]) -> int:
    edges = np.cumsum(distribution.probs)
    at = int(np.searchsorted(edges, chance() * edges[-1], side="right"))
    return int(distribution.ids[min(at, distribution.ids.size - 1)])


def _descending(row: Row, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return ids[np.argsort(-row[ids], kind="stable")]
