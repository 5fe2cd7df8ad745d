"""Sampling against slow references that follow the definitions, one token and one step at a time."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from fake.backend import Alternating
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llamaspec.decode.ports import Distribution, Proposal, Row
from llamaspec.decode.sampling import Sampler, confidence, probability, residual, softmax, top_candidates
from llamaspec.errors import DecodeError, GrammarError
from llamaspec.settings import SamplingSettings

OPEN = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
GREEDY = SamplingSettings(temperature=0.0)

# Multiples of a quarter: ties are frequent, and borders are not a matter of rounding.
logits = st.lists(st.integers(-40, 40).map(lambda n: n / 4), min_size=1, max_size=24).map(
    lambda values: np.array(values, np.float32)
)
history = st.lists(st.integers(0, 30), max_size=12)


def reference(
    row: Row, options: SamplingSettings, past: Sequence[int] = (), banned: Sequence[int] = ()
) -> dict[int, float]:
    """Penalties, top-k, top-p, min-p, temperature: each as a pass over a list of (id, logit)."""
    values = [float(value) for value in row]
    last_n = len(past) if options.repeat_last_n < 0 else options.repeat_last_n
    window = [token for place, token in enumerate(past) if place >= len(past) - last_n]
    for token, count in Counter(window).items():
        if token < len(values):
            value = values[token]
            value = value / options.repeat_penalty if value > 0 else value * options.repeat_penalty
            values[token] = value - count * options.frequency_penalty - options.presence_penalty
    for token in banned:
        values[token] = -math.inf
    left = sorted(enumerate(values), key=lambda pair: (-pair[1], pair[0]))
    if options.top_k:
        left = left[: options.top_k]
    weights = [math.exp(value - left[0][1]) for _, value in left]
    total = sum(weights)
    kept, mass = [], 0.0
    for pair, weight in zip(left, weights, strict=True):
        kept.append(pair)
        mass += weight / total
        if options.top_p < 1.0 and mass >= options.top_p:
            break
    kept = [pair for pair in kept if options.min_p == 0.0 or math.exp(pair[1] - kept[0][1]) >= options.min_p]
    weights = [math.exp((value - kept[0][1]) / options.temperature) for _, value in kept]
    return {token: weight / sum(weights) for (token, _), weight in zip(kept, weights, strict=True) if weight}


def as_dict(distribution: Distribution) -> dict[int, float]:
    return dict(zip(distribution.ids.tolist(), distribution.probs.tolist(), strict=True))


@given(
    logits,
    st.sampled_from([0, 1, 2, 5, 100]),
    st.sampled_from([0.0, 0.31, 0.77, 0.999, 1.0]),
    st.sampled_from([0.0, 0.013, 0.21, 0.93, 1.0]),
    st.sampled_from([0.5, 1.0, 2.5]),
)
@settings(max_examples=400)
def test_truncations_and_temperature(
    row: Row, top_k: int, top_p: float, min_p: float, temperature: float
) -> None:
    options = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    before = row.copy()
    sampler = Sampler(options, 0)
    if options.greedy:
        assert sampler.choose(row, ()) == row.tolist().index(max(row))
    else:
        found = sampler.distribution(row, ())
        assert as_dict(found) == pytest.approx(reference(row, options))
        assert (found.probs > 0).all()
        assert found.probs.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(row, before)


@given(
    logits,
    history,
    st.sampled_from([1.0, 1.3, 0.7]),
    st.sampled_from([0.0, 0.4, -0.6]),
    st.sampled_from([0.0, 0.25, -0.25]),
    st.sampled_from([-1, 0, 1, 4, 64]),
)
@settings(max_examples=300)
def test_penalties(
    row: Row, past: list[int], repeat: float, presence: float, frequency: float, last_n: int
) -> None:
    penalties = {
        "repeat_penalty": repeat,
        "presence_penalty": presence,
        "frequency_penalty": frequency,
        "repeat_last_n": last_n,
    }
    before = row.copy()
    options = OPEN.model_copy(update=penalties)
    found = as_dict(Sampler(options, 0).distribution(row, past))
    expected = reference(row, options, past)
    assert found == pytest.approx(expected, rel=1e-5)
    greedy = Sampler(GREEDY.model_copy(update=penalties), 0).choose(row, past)
    assert expected[greedy] == pytest.approx(max(expected.values()), rel=1e-5)
    np.testing.assert_array_equal(row, before)


@given(logits.filter(lambda row: row.size > 2), history)
def test_banned_tokens_never_come(row: Row, past: list[int]) -> None:
    banned = [1, row.size - 1]
    before = row.copy()
    options = OPEN.model_copy(update={"presence_penalty": 0.5})
    found = Sampler(options, 0, bias=dict.fromkeys(banned, -np.inf)).distribution(row, past)
    assert as_dict(found) == pytest.approx(reference(row, options, past, banned), rel=1e-5)
    assert Sampler(GREEDY, 0, bias=dict.fromkeys(banned, -np.inf)).choose(row, past) not in banned
    np.testing.assert_array_equal(row, before)


def test_banned_ids_beyond_a_smaller_vocabulary_do_no_harm() -> None:
    row = np.array([0.0, 1.0], np.float32)
    assert Sampler(GREEDY, 0, bias={1: -np.inf, 7: -np.inf}).choose(row, [9, 1]) == 0


@given(logits, st.integers(1, 30))
def test_top_candidates_are_the_largest_and_of_equals_the_first(row: Row, count: int) -> None:
    expected = sorted(range(row.size), key=lambda token: (-row[token], token))[:count]
    assert top_candidates(row, count).tolist() == expected


def test_top_candidates_of_a_flat_and_of_a_steep_row() -> None:
    assert top_candidates(np.zeros(5000, np.float32), 3).tolist() == [0, 1, 2]
    steep = np.array([-1e30, -np.inf, 0.0, -3e38, -20.0], np.float32)
    assert top_candidates(steep, 5).tolist() == [2, 4, 0, 3, 1]


@given(logits)
def test_confidence_is_that_of_the_best_among_the_ten_best(row: Row) -> None:
    best = sorted((float(value) for value in row), reverse=True)[:10]
    expected = 1.0 / sum(math.exp(value - best[0]) for value in best)
    assert confidence(row, int(row.argmax())) == pytest.approx(expected, rel=0.004, abs=1e-6)


@pytest.mark.parametrize(
    "row",
    [
        np.full(200, np.nan, np.float32),
        np.full(200, -np.inf, np.float32),
        np.full(200, np.inf, np.float32),
        np.array([0.0, np.nan, 1.0], np.float32),
    ],
    ids=["nan", "-inf", "inf", "one nan"],
)
@pytest.mark.parametrize(
    "options", [OPEN, GREEDY, SamplingSettings(), OPEN.model_copy(update={"min_p": 0.1})]
)
@pytest.mark.parametrize("grammar", [None, Alternating()])
def test_rows_that_are_not_numbers_are_an_error(
    row: Row, options: SamplingSettings, grammar: Alternating | None
) -> None:
    sampler = Sampler(options, 1, grammar=grammar)
    with pytest.raises(DecodeError):
        sampler.choose(row, ())
    assert sampler.propose(row, ()) is None


@pytest.mark.parametrize("options", [OPEN, GREEDY, SamplingSettings()])
def test_excluded_tokens_are_not_an_error(options: SamplingSettings) -> None:
    row = np.array([-np.inf, 2.0, -np.inf], np.float32)
    assert Sampler(options, 1).choose(row, ()) == 1
    assert confidence(row, 1) == 1.0


class Only:
    """A grammar that allows just these tokens, and counts how many it is asked about."""

    def __init__(self, *tokens: int) -> None:
        self.asked = 0
        self._tokens = tokens

    def allowed(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        self.asked += tokens.size
        return np.isin(tokens, self._tokens)

    def accept(self, token: int) -> None: ...

    def copy(self) -> "Only":
        return self


FALLING = np.arange(1000, 0, -1).astype(np.float32) / 100


@pytest.mark.parametrize("allowed", [0, 1, 63, 64, 500, 999])
def test_greedy_looks_as_far_as_the_grammar_makes_it(allowed: int) -> None:
    assert Sampler(GREEDY, 0, grammar=Only(999, allowed)).choose(FALLING.copy(), ()) == allowed


def test_the_grammar_is_asked_about_one_token_where_that_is_enough() -> None:
    grammar = Only(0)
    Sampler(GREEDY, 0, grammar=grammar).choose(FALLING.copy(), ())
    assert grammar.asked == 1


@given(st.integers(0, 1))
def test_a_grammar_filters_what_the_truncations_left(parity: int) -> None:
    options = SamplingSettings(temperature=1.0, top_k=5, top_p=1.0, min_p=0.0)
    found = as_dict(Sampler(options, 0, grammar=Alternating(parity)).distribution(FALLING.copy(), ()))
    kept = [token for token in range(5) if token % 2 == parity]
    weights = [math.exp(float(FALLING[token])) for token in kept]
    assert found == pytest.approx({t: w / sum(weights) for t, w in zip(kept, weights, strict=True)})


def test_where_the_truncations_left_nothing_allowed_the_whole_vocabulary_is_filtered() -> None:
    options = SamplingSettings(temperature=1.0, top_k=2, top_p=1.0, min_p=0.0)
    found = Sampler(options, 0, grammar=Only(7, 900, 901)).distribution(FALLING.copy(), ())
    assert found.ids.tolist() == [7, 900]


def test_only_banned_tokens_are_allowed() -> None:
    """The grammar has come to its end and the end is banned: the grammar wins, drafts or not."""
    for options in (OPEN, GREEDY):
        sampler = Sampler(options, 0, grammar=Only(3), bias={3: -np.inf})
        assert sampler.choose(FALLING.copy(), ()) == 3


@pytest.mark.parametrize("options", [OPEN, GREEDY, SamplingSettings()])
def test_a_grammar_that_allows_nothing_is_an_error(options: SamplingSettings) -> None:
    with pytest.raises(GrammarError):
        Sampler(options, 0, grammar=Only()).choose(FALLING.copy(), ())


def test_drafts_are_proposed_without_the_grammar() -> None:
    sampler = Sampler(OPEN, 0, grammar=Only(999))
    proposal = sampler.propose(FALLING.copy(), ())
    assert proposal is not None
    assert proposal.drawn_from is not None
    assert proposal.drawn_from.ids.size == 1000
    assert proposal.token != 999
    greedy = Sampler(GREEDY, 0, grammar=Only(999)).propose(FALLING.copy(), ())
    assert greedy == Proposal(0, None, confidence(FALLING, 0))
    assert greedy.confidence == pytest.approx(proposal.confidence, rel=0.001)


probs = st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any)


def over(weights: Sequence[int], order: Sequence[int]) -> Distribution:
    ids = np.array([token for token in order if weights[token]])
    return Distribution(ids, np.array([weights[token] for token in ids]) / sum(weights))


@given(probs, probs, st.permutations(range(4)), st.permutations(range(4)))
def test_residual_is_the_positive_part_of_the_difference(
    p: list[int], q: list[int], order_p: list[int], order_q: list[int]
) -> None:
    exact = [max(Fraction(a, sum(p)) - Fraction(b, sum(q)), Fraction(0)) for a, b in zip(p, q, strict=True)]
    rest = residual(over(p, order_p), over(q, order_q))
    if sum(exact) == 0:
        assert rest is None or rest.probs.sum() == pytest.approx(1.0)
        return
    assert rest is not None
    for token in range(4):
        assert probability(rest, token) == pytest.approx(float(exact[token] / sum(exact)), abs=1e-12)


def test_draws_follow_the_distribution_and_the_seed() -> None:
    distribution = Distribution(np.array([4, 2, 9]), np.array([0.5, 0.3, 0.2]))
    first, second = (Sampler(OPEN, 11) for _ in range(2))
    drawn = [first.draw(distribution) for _ in range(4000)]
    assert drawn == [second.draw(distribution) for _ in range(4000)]
    for token, p in ((4, 0.5), (2, 0.3), (9, 0.2)):
        assert drawn.count(token) / 4000 == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 4000))


def test_what_has_no_probability_is_never_drawn() -> None:
    class Extreme(Sampler):
        def __init__(self, value: float) -> None:
            super().__init__(OPEN, 0)
            self._random = type("Fixed", (), {"random": lambda _self: value})()  # type: ignore[assignment]

    distribution = Distribution(np.array([0, 1, 2, 3]), np.array([0.0, 0.5, 0.0, 0.5]))
    assert {Extreme(value).draw(distribution) for value in (0.0, 0.25, 0.5, 0.75, 1 - 2**-53)} == {1, 3}


def test_softmax_is_stable() -> None:
    assert softmax(np.array([1e30, 1e30])).tolist() == [0.5, 0.5]
    assert softmax(np.array([0.0, -np.inf])).tolist() == [1.0, 0.0]
