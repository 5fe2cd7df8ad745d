"""Prices from decodes: what is measured at the first start, and what every decode after teaches."""

from collections.abc import Sequence

import pytest

from fake.backend import FakeBackend
from llamaspec.control.prices import Prices
from llamaspec.decode.ports import Feed, Row
from llamaspec.engine.calibrate import BUDGET_SECONDS, calibrate
from llamaspec.engine.metered import Metered


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(FakeBackend):
    """Takes `once` seconds for a decode and `each` for a token of it."""

    def __init__(self, clock: Clock, once: float, each: float, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.clock, self.once, self.each = clock, once, each
        self.tokens: set[int] = set()

    def decode(self, feeds: Sequence[Feed]) -> list[Row]:
        self.clock.now += self.once + self.each * sum(len(feed.tokens) for feed in feeds)
        self.tokens |= {token for feed in feeds for token in feed.tokens}
        return super().decode(feeds)


def calibrated(clock: Clock, main: Timed, draft: Timed | None = None, prices: Prices | None = None) -> Prices:
    prices = prices or Prices()
    calibrate(prices, main, draft, limit=16, clock=clock)
    assert not any(main.held.values())
    return prices


def test_every_width_is_measured_where_there_is_time() -> None:
    clock = Clock()
    prices = calibrated(clock, Timed(clock, 0.01, 0.002), Timed(clock, 0.002, 0.001, batch_size=128))
    table = prices.main.prices(0)
    assert table[1:18] == pytest.approx([0.01 + 0.002 * width for width in range(1, 18)])
    assert prices.draft.prices(0)[1] == pytest.approx(0.003)
    assert prices.check.prices(0)[4] == pytest.approx(0.006)
    assert clock.now < BUDGET_SECONDS + 0.5


def test_a_slow_machine_measures_what_matters_most() -> None:
    clock = Clock()
    main, draft = Timed(clock, 0.4, 0.2), Timed(clock, 0.1, 0.02)
    prices = calibrated(clock, main, draft)
    assert prices.main.measured(1)
    assert not prices.main.measured(16)
    assert prices.main.prices(0)[16] > prices.main.prices(0)[1]
    # What there was no time for is measured at the next start, and the rest is not again.
    before = main.decodes
    calibrated(clock, main, draft, prices)
    assert main.decodes > before


def test_tokens_differ() -> None:
    clock = Clock()
    main = Timed(clock, 0.01, 0.0)
    calibrated(clock, main)
    assert len(main.tokens) > 6


@pytest.mark.parametrize(("once", "each", "forgotten"), [(0.02, 0.004, False), (0.01, 0.03, True)])
def test_what_no_longer_fits_is_measured_anew(once: float, each: float, forgotten: bool) -> None:
    clock = Clock()
    prices = calibrated(clock, Timed(clock, 0.01, 0.002))
    calibrated(clock, Timed(clock, once, each), prices=prices)
    relation = prices.main.prices(0)[8] / prices.main.prices(0)[1]
    assert relation == pytest.approx(
        (once + 8 * each) / (once + each) if forgotten else 0.026 / 0.012, rel=0.01
    )
    assert prices.main.seconds(1, 0) == pytest.approx(once + each, rel=0.01)


def test_a_draft_model_that_was_measured_wrong_is_measured_anew() -> None:
    clock = Clock()
    main = Timed(clock, 0.01, 0.002)
    prices = calibrated(clock, main, Timed(clock, 0.03, 0.0, batch_size=128))
    calibrated(clock, main, Timed(clock, 0.003, 0.0, batch_size=128), prices)
    assert prices.draft.prices(0)[1] == pytest.approx(0.003)


def test_decodes_teach_the_table_that_they_are_of() -> None:
    clock = Clock()
    prices = Prices()
    backend = Metered(
        Timed(clock, 0.01, 0.002, batch_size=256), all_rows=prices.check, each=prices.draft, clock=clock
    )
    backend.decode([Feed(0, [1], 0, 1)])
    backend.decode([Feed(0, [2, 3, 4], 1, 3)])
    backend.decode([Feed(0, [1] * 100, 4, 1)])  # a prompt
    backend.decode([Feed(0, [1, 2], 104, 0)])
    assert prices.draft.measured(1) and not prices.check.measured(1)
    assert prices.check.measured(3) and not prices.draft.measured(3)
    assert not prices.draft.measured(2)
