"""From logits to a token: penalties, grammar, top-k, top-p, min-p, temperature.

The order and the meaning of each are llama.cpp's, where top-p and min-p look at the distribution
before temperature. A grammar filters what the truncations have left; only where it allows none of
that does it filter the whole vocabulary first, which costs milliseconds. What counts for being
lossless is that plain and speculative decoding use this one definition.

A vocabulary has some 150 k entries: with top-k, or with min-p alone, only a few candidates are looked at
and sorted. Without either the whole row is, which costs milliseconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf, log

import numpy as np
from numpy.typing import NDArray

from llamaspec.decode.ports import Distribution, Grammar, Proposal, Row
from llamaspec.errors import DecodeError, GrammarError
from llamaspec.settings import SamplingSettings

_STRIPES = 32
_LEAST = -1e30
_CONFIDENT_AMONG = 10
_WORD = (1 << 64) - 1
_NEGLIGIBLE = 12.0  # logits below the maximum; e^-12 is 0.0006 % of the most probable token
_GRAMMAR_GLANCE = 64  # candidates that a grammar is asked about before the whole vocabulary is


class Sampler:
    """Chooses tokens for one sequence: its settings, its penalties and its random numbers.

    `bias` is added to logits before anything else; -inf is for tokens that must never come. A `repeatable`
    one proposes best tokens instead of drawing them, which are kept less often: the text then depends on
    the seed and not on what was drafted.
    """

    def __init__(
        self,
        settings: SamplingSettings,
        seed: int,
        *,
        grammar: Grammar | None = None,
        bias: Mapping[int, float] | None = None,
        repeatable: bool = False,
    ) -> None:
        self.greedy = settings.greedy
        self._certain = repeatable or settings.greedy
        self.grammar = grammar
        self._settings = settings
        self._biased = np.fromiter(bias or (), np.int64)
        self._bias = np.fromiter((bias or {}).values(), np.float32)
        self._penalised = settings.repeat_last_n != 0 and (
            settings.repeat_penalty != 1.0
            or settings.presence_penalty != 0.0
            or settings.frequency_penalty != 0.0
        )
        self._seed = seed
        self._random = np.random.Generator(np.random.PCG64(seed))

    def choose(self, row: Row, history: Sequence[int]) -> int:
        """The next token after `history` for the main model's logits."""
        if self.greedy:
            return self.best(row, history)
        return self.draw(self.distribution(row, history), len(history))

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
        if self.greedy:
            return Distribution(np.array([self.best(row, history)]), np.ones(1))
        with self._adjusted(row, history):
            ids, logits = self._truncated(*self._candidates(row))
            grammar = self.grammar if constrained else None
            if grammar is not None:
                allowed = grammar.allowed(ids)
                if allowed.any():
                    ids, logits = ids[allowed], logits[allowed]
                else:
                    ids = _descending(row, self._allowed_everywhere(grammar, row.size))
                    # A banned token that is all a grammar allows comes after all: it may be the only end.
                    ids, logits = self._truncated(ids, np.maximum(row[ids].astype(np.float64), _LEAST))
            return self._tempered(ids, logits)

    def propose(self, row: Row, history: Sequence[int]) -> Proposal | None:
        """A draft token: drawn as the main model would draw it, which makes acceptance likeliest."""
        with self._adjusted(row, history):
            if self._certain:
                best = int(row.argmax())
                return Proposal(best, None, confidence(row, best)) if np.isfinite(row[best]) else None
            try:
                ids, logits = self._candidates(row)
            except DecodeError:
                return None
        drawn_from = self._tempered(*self._truncated(ids, logits))
        return Proposal(self.draw(drawn_from), drawn_from, _share_of_best(logits))

    def draw(self, distribution: Distribution, position: int | None = None) -> int:
        """One token of a distribution, by inversion.

        At a `position` of the text the number drawn depends on that and the seed alone: whatever was drafted,
        the same token comes out of the same distribution.
        """
        chance = self.chance() if position is None else _noise(self._seed, position)
        return _draw(distribution, chance)

    def chance(self) -> float:
        """The next random number in [0, 1)."""
        return float(self._random.random())

    def accept(self, token: int) -> None:
        """Advance the grammar by an emitted token."""
        if self.grammar is not None:
            self.grammar.accept(token)

    @contextmanager
    def _adjusted(self, row: Row, history: Sequence[int]) -> Iterator[None]:
        """The row with biases and penalties in place. Only the few touched entries are put back after."""
        penalised = self._penalised and len(history) > 0
        if not penalised and self._biased.size == 0:
            yield
            return
        # A draft model's vocabulary may be smaller than the one that these ids are from.
        known = self._biased < row.size
        biased = self._biased[known]
        ids, counts = _occurrences(self._window(history) if penalised else (), row.size)
        saved_biased = row[biased]
        row[biased] += self._bias[known]
        saved = row[ids]
        try:
            row[ids] = self._penalise(saved, counts)
            yield
        finally:
            row[ids] = saved
            row[biased] = saved_biased

    def _window(self, history: Sequence[int]) -> Sequence[int]:
        last_n = self._settings.repeat_last_n
        return history if last_n < 0 else history[-last_n:]

    def _penalise(self, logits: Row, counts: NDArray[np.int64]) -> Row:
        repeat = np.float32(self._settings.repeat_penalty)
        scaled = np.where(logits <= 0, logits * repeat, logits / repeat)
        reduction = counts * self._settings.frequency_penalty + self._settings.presence_penalty
        return np.asarray(scaled - reduction, dtype=np.float32)

    def _candidates(self, row: Row) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Ids and logits, the most probable first: the ten best and all that the truncations can leave."""
        settings = self._settings
        if settings.top_k:
            ids = top_candidates(row, max(settings.top_k, _CONFIDENT_AMONG))
        elif settings.min_p > 0.0 and settings.top_p >= 1.0:
            peak = row.max()
            _check_peak(peak)
            near = np.flatnonzero(row >= peak + np.log(settings.min_p))
            few = near.size < _CONFIDENT_AMONG
            ids = top_candidates(row, _CONFIDENT_AMONG) if few else _descending(row, near)
        else:
            _check_peak(row.max())
            ids = _descending(row, np.flatnonzero(row > -np.inf))
        return ids, row[ids].astype(np.float64)

    def _truncated(
        self, ids: NDArray[np.int64], logits: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """What top-k, top-p and min-p leave of descending `logits`: always the first ones, never none."""
        settings = self._settings
        weights = np.exp(logits[: settings.top_k or None] - logits[0])
        keep = int(np.count_nonzero(weights > 0.0))
        if settings.top_p < 1.0:
            edges = weights.cumsum()
            keep = min(keep, int(edges.searchsorted(settings.top_p * edges[-1])) + 1)
        if settings.min_p > 0.0:
            keep = min(keep, int(np.count_nonzero(weights >= settings.min_p)))
        return ids[:keep], logits[:keep]

    def _tempered(self, ids: NDArray[np.int64], logits: NDArray[np.float64]) -> Distribution:
        return Distribution(ids, softmax(logits / self._settings.temperature))

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


def _occurrences(tokens: Sequence[int], vocab: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct tokens below `vocab`, and how often each is there."""
    if not tokens:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    ids, counts = np.unique(np.asarray(tokens, dtype=np.int64), return_counts=True)
    return ids[ids < vocab], counts[ids < vocab]


def _check_peak(logit: float) -> None:
    """A row whose largest logit is NaN or infinite says nothing about the next token."""
    if not np.isfinite(logit):
        raise DecodeError(
            "The model's logits are not numbers.",
            "The file may be damaged, or a KV cache type or device too imprecise for it.",
        )


def top_candidates(row: Row, count: int) -> NDArray[np.int64]:
    """Ids of the `count` largest logits, descending, equal ones by id; shape [min(count, vocab)].

    The row is laid out in stripes, of which each column has a peak. Whatever is among the largest is at
    least as large as the `count`-th peak, and so in a column whose peak is: the rest is not looked at.
    """
    _check_peak(row.max())  # and a straight read brings the row into the cache, which halves what follows
    width = row.size // _STRIPES
    if count >= width:
        return _descending(row, np.arange(row.size))[:count]
    peaks = row[: _STRIPES * width].reshape(_STRIPES, width).max(axis=0)
    bound = np.partition(peaks, width - count)[width - count]
    near = (np.flatnonzero(peaks >= bound) + width * np.arange(_STRIPES)[:, None]).ravel()
    ids = np.concatenate([near, np.arange(_STRIPES * width, row.size)])
    return _descending(row, ids[row[ids] >= bound])[:count]


def confidence(row: Row, best: int) -> float:
    """Probability of the best token among the ten best: what llama.cpp compares with p-min."""
    near = row[np.flatnonzero(row > row[best] - _NEGLIGIBLE)]
    if near.size > _CONFIDENT_AMONG:
        near = np.partition(near, near.size - _CONFIDENT_AMONG)[-_CONFIDENT_AMONG:]
    return float(1.0 / np.exp(near - row[best]).sum())


def log_probabilities(row: Row, token: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Of a raw row: the logarithm of a token's probability, and the `count` best tokens with theirs."""
    peak = row.max()
    _check_peak(peak)
    total = float(peak) + log(float(np.exp(row - peak).sum(dtype=np.float64)))
    best = top_candidates(row, count) if count else ()
    return float(row[token]) - total, tuple((int(other), float(row[other]) - total) for other in best)


def post_log_probabilities(
    drawn_from: Distribution, token: int, count: int
) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The same of what the samplers have left: at most `count` tokens, and none that can't come."""
    best = zip(drawn_from.ids[:count], drawn_from.probs[:count], strict=True)
    chance = probability(drawn_from, token)
    top = tuple((int(other), log(p)) for other, p in best if p > 0.0)
    return log(chance) if chance > 0.0 else -inf, top


def _share_of_best(logits: NDArray[np.float64]) -> float:
    """As `confidence`, of descending logits."""
    return float(1.0 / np.exp(logits[:_CONFIDENT_AMONG] - logits[0]).sum())


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities; the largest logit is finite."""
    weights = np.exp(logits - logits.max())
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


def _noise(seed: int, position: int) -> float:
    """An even random number in [0, 1) for each position (SplitMix64, Steele, Lea and Flood 2014)."""
    mixed = (seed + (position + 1) * 0x9E3779B97F4A7C15) & _WORD
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _WORD
    return ((mixed ^ (mixed >> 31)) >> 11) * 2.0**-53


def _draw(distribution: Distribution, chance: float) -> int:
    edges = np.cumsum(distribution.probs)
    at = int(np.searchsorted(edges, chance * edges[-1], side="right"))
    return int(distribution.ids[min(at, distribution.ids.size - 1)])


def _descending(row: Row, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return ids[np.argsort(-row[ids], kind="stable")]
