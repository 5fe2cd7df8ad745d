"""How long to draft: the rules against brute force, on prices that need not rise evenly."""

from collections.abc import Sequence
from itertools import accumulate
from operator import mul

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaspec.control.policy import best_ahead, best_width, most_gained, quickest_width, round_costs

rate = st.floats(0.02, 0.98)
rates = st.lists(rate, min_size=0, max_size=6)
worth = st.floats(1.0, 6.0)
cost = st.floats(0.2, 8.0)
costs7 = st.lists(cost, min_size=6, max_size=6).map(lambda costs: [1.0, *costs])

# As on two cores: in steps, and lower again.
STEPS = [1.0, 1.7, 2.9, 2.9, 6.8, 6.5, 5.0]


def survival_of(kept: Sequence[float]) -> list[float]:
    return list(accumulate(kept, mul))


@given(rates, costs7, worth)
def test_best_width_is_the_best_of_all(kept: list[float], costs: list[float], worth: float) -> None:
    survival = survival_of(kept)
    gains = [sum(survival[:width]) - worth * (costs[width] - 1.0) for width in range(len(kept) + 1)]
    width, gain = best_width(survival, costs, worth)
    assert gain == pytest.approx(max(gains), abs=1e-9)
    assert gains[width] == pytest.approx(max(gains), abs=1e-9)


def test_best_width_looks_beyond_a_step() -> None:
    survival = survival_of([0.99] * 6)
    assert best_width(survival[:5], STEPS, 1.0)[0] == 3
    assert best_width(survival, STEPS, 1.0)[0] == 6
    assert best_width([], STEPS, 1.0) == (0, 0.0)


def expected_rounds(kept: Sequence[float], costs: Sequence[float], widths: Sequence[int]) -> float:
    """Costs until the text leaves an offer, if after i right tokens `widths[i]` are verified.

    Behind its end the offer goes on as its last token did; by then as many tokens are verified each round.
    """
    last = kept[-1]
    tail = min(costs[width] / (1.0 - last ** (width + 1)) for width in range(len(kept) + 1))

    def rounds(right: int) -> float:
        if right >= len(kept):
            return tail
        width = widths[right]
        going = 1.0
        for place in range(right, right + width + 1):
            going *= kept[place] if place < len(kept) else last
        return costs[width] + going * rounds(right + width + 1)

    return rounds(0)


@given(st.lists(st.floats(0.3, 0.98), min_size=1, max_size=4), costs7)
def test_the_end_of_an_offer_is_reached_soonest(kept: list[float], costs: list[float]) -> None:
    def plans(right: int) -> list[list[int]]:
        if right == len(kept):
            return [[]]
        return [[width, *rest] for width in range(len(kept) - right + 1) for rest in plans(right + 1)]

    first = quickest_width(survival_of(kept), costs)
    best = min(expected_rounds(kept, costs, plan) for plan in plans(0))
    with_first = min(expected_rounds(kept, costs, plan) for plan in plans(0) if plan[0] == first)
    assert with_first == pytest.approx(best, rel=1e-9)


def test_an_offer_that_is_sure_is_taken_whole_and_a_poor_one_is_left() -> None:
    assert quickest_width(survival_of([0.99] * 6), STEPS) == 6
    assert quickest_width(survival_of([0.1] * 6), STEPS) == 0
    assert quickest_width([], STEPS) == 0
    assert quickest_width([0.0, 0.0], STEPS) == 0


@given(st.floats(0.05, 1.0), st.integers(0, 6), rate, rate, st.floats(0.01, 1.0), costs7, worth)
def test_best_ahead_is_the_best_of_all(
    survives: float, drafted: int, after: float, later: float, step: float, costs: list[float], worth: float
) -> None:
    gains = [0.0]
    for more in range(1, len(costs) - drafted):
        tokens = sum(survives * after * later**place for place in range(more))
        gains.append(tokens - worth * (costs[drafted + more] - costs[drafted] + more * step))
    assert best_ahead(survives, drafted, after, later, step, costs, worth) == pytest.approx(
        max(gains), abs=1e-9
    )


@given(costs7, st.floats(0.0, 2.0), rate)
def test_nothing_gains_more_than_the_bound(costs: list[float], step: float, kept: float) -> None:
    bound = most_gained(costs, step)
    for width, cost in enumerate(costs):
        tokens = sum(kept**place for place in range(width + 1))
        assert tokens / (cost + width * step) <= bound + 1e-9


def test_a_draft_model_that_can_not_pay() -> None:
    assert most_gained([1.0, 1.7, 2.9], step=0.8) == 1.0
    assert most_gained([1.0, 1.1, 1.2], step=0.1) == pytest.approx(3.0 / 1.4)


def test_costs_are_in_plain_rounds() -> None:
    prices = [0.0, 0.1, 0.15, 0.12, 0.4]
    assert round_costs(prices, 3) == pytest.approx([1.0, 1.5, 1.2, 4.0])
    assert round_costs(prices, 0) == [1.0]


def test_beside_others_a_round_costs_their_time_too() -> None:
    prices = [0.0, 0.1, 0.2, 0.3, 0.4]
    # Two tokens of others make a plain round of 0.3 s; a third more of it delays three sequences.
    assert round_costs(prices, 1, beside=2, waiting=2) == pytest.approx([1.0, 2.0])
    # Beside two prompt tokens of one that waits: its plain round has two tokens.
    assert round_costs([0.0, 2.0, 3.0, 4.0, 7.0], 1, beside=2, waiting=1) == pytest.approx([1.0, 3.0])


def test_a_dip_that_is_noise_makes_no_round_free() -> None:
    assert min(round_costs([0.0, *[1.0] * 9, 0.1], 1, beside=8)) > 0.0
