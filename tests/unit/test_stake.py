"""The stake: what a text may lose by following offers."""

from llamaspec.control.stake import Stake


def most_covered(stake: Stake) -> float:
    return max(tenth / 10 for tenth in range(1000) if stake.covers(tenth / 10))


def test_a_text_begins_with_one_token_and_what_is_won_raises_it() -> None:
    stake = Stake()
    assert stake.covers(0.9) and not stake.covers(1.1)
    stake.settle(2.0, 4)
    assert stake.covers(3.0) and not stake.covers(3.2)


def test_all_that_can_be_lost_is_the_stake_and_a_hundredth_of_the_text() -> None:
    stake, lost, emitted = Stake(), 0.0, 0
    for _ in range(1000):
        loss = most_covered(stake)
        stake.settle(-loss, 1)
        lost, emitted = lost + loss, emitted + 1
    assert 0.5 < lost <= 1.0 + 0.01 * emitted


def test_winning_without_end_covers_no_more_than_some_wide_batches() -> None:
    stake = Stake()
    for _ in range(100):
        stake.settle(10.0, 11)
    assert 20.0 < most_covered(stake) < 30.0


def test_what_would_have_won_makes_up_for_losses_alone() -> None:
    stake = Stake()
    stake.would_have(5.0)
    assert most_covered(stake) <= 1.0
    stake.settle(-1.0, 1)
    assert not stake.covers(0.5)
    for _ in range(20):
        stake.would_have(0.3)
    assert 0.9 <= most_covered(stake) <= 1.0
    stake.settle(4.0, 5)
    stake.would_have(0.3)
    assert most_covered(stake) > 4.5
