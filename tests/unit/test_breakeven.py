"""From prices to the acceptance at which drafting pays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaspec.control.breakeven import break_even

MILLISECONDS = st.floats(min_value=0.1, max_value=1000.0)


def rate(prices: list[float], step: float, k: int, acceptance: float) -> float:
    """Tokens per unit of time with drafts of `k`, against plain decoding."""
    return sum(acceptance**i for i in range(k + 1)) / (prices[k] + k * step) * prices[0]


def test_one_token_by_hand() -> None:
    # A round costs 1.2 + 0.3 = 1.5 plain steps, and yields 1 + a tokens.
    found = break_even([10.0, 12.0], 3.0)
    assert found.acceptance == pytest.approx(0.5)
    assert (found.length, found.most) == (1, pytest.approx(2 / 1.5))


def test_a_price_that_is_flat_asks_for_little() -> None:
    found = break_even([100.0] * 9, 1.0)
    assert found.acceptance == pytest.approx(0.01, abs=1e-4)
    assert found.most == pytest.approx(9 / 1.08)


def test_a_longer_draft_may_be_the_one_that_pays() -> None:
    """Where the second token is dear and the others are nearly free."""
    found = break_even([10.0, 20.0, 20.0, 20.0, 20.0], 0.1)
    assert found.length == 4
    assert found.acceptance is not None
    assert rate([10.0, 20.0, 20.0, 20.0, 20.0], 0.1, 4, found.acceptance) == pytest.approx(1.0)


def test_never() -> None:
    found = break_even([33.0, 60.0, 80.0, 101.0], 27.0)
    assert found.acceptance is None
    assert found.most == pytest.approx(max(rate([33.0, 60.0, 80.0, 101.0], 27.0, k, 1.0) for k in (1, 2, 3)))
    assert found.most < 1.0


def test_a_round_that_costs_no_more_pays_at_once() -> None:
    assert break_even([10.0, 9.0], 0.5).acceptance == 0.0


def test_always_right_and_just_worth_it() -> None:
    assert break_even([1.0, 1.5], 0.5).acceptance == pytest.approx(1.0)


@given(prices=st.lists(MILLISECONDS, min_size=2, max_size=17), step=MILLISECONDS)
def test_no_length_pays_below_it_and_one_does_above(prices: list[float], step: float) -> None:
    found = break_even(prices, step)
    lengths = range(1, len(prices))
    assert found.length in lengths
    if found.acceptance is None:
        assert found.most < 1.0
        assert all(rate(prices, step, k, 1.0) < 1.0 for k in lengths)
        return
    above, below = min(1.0, found.acceptance + 1e-6), found.acceptance - 1e-6
    assert rate(prices, step, found.length, above) >= 1.0 - 1e-9
    if below > 0.0:
        assert all(rate(prices, step, k, below) < 1.0 for k in lengths)
