"""Tables of prices: what lies between, what the machine's level does, what is refused."""

import json
from random import Random

import pytest

from llamaspec.control.prices import MAX_WIDTH, Curve, Prices


def measured(**seconds: float) -> Curve:
    """A curve with w1=…, w2=… measured at the lowest depth."""
    curve = Curve()
    for width, value in seconds.items():
        curve.measure(int(width[1:]), 0, [value])
    return curve


def test_nothing_is_known_at_first() -> None:
    curve = Curve()
    assert not curve.known
    assert not any(curve.prices(100))
    assert curve.plain_seconds(100) == 0.0
    assert curve.fits


def test_widths_between_lie_on_lines_and_beyond_go_on() -> None:
    prices = measured(w1=10.0, w3=14.0, w5=12.0, w8=18.0).prices(0)
    assert prices[1:9] == pytest.approx([10, 12, 14, 13, 12, 14, 16, 18])
    assert prices[16] == pytest.approx(18 + 8 * (18 - 10) / 7)
    assert len(prices) == MAX_WIDTH + 1


def test_of_a_single_width_more_is_guessed_to_cost_more() -> None:
    prices = measured(w4=10.0).prices(0)
    assert prices[1:5] == [10.0] * 4
    assert prices[4:] == sorted(set(prices[4:]))


def test_one_token_takes_no_longer_than_several() -> None:
    prices = measured(w1=200.0, w2=30.0, w4=29.0, w8=60.0).prices(0)
    assert prices[1:5] == pytest.approx([29, 30, 29.5, 29])
    assert prices[8] == 60.0


def test_a_measurement_is_a_median() -> None:
    curve = Curve()
    curve.measure(1, 0, [1.0, 9.0, 1.2])
    assert curve.prices(0)[1] == 1.2


def test_a_slow_machine_makes_no_width_look_dear() -> None:
    curve = measured(w1=1.0, w2=1.5, w4=2.0)
    for _ in range(60):
        curve.observe(1, 0, 1.3)
    assert curve.seconds(1, 0) == pytest.approx(1.3, rel=0.02)
    assert curve.seconds(4, 0) == pytest.approx(2.6, rel=0.15)
    prices = curve.prices(0)
    assert prices[4] / prices[1] == pytest.approx(2.0, rel=0.15)


def test_a_width_that_is_dear_is_learnt() -> None:
    curve, random = measured(w1=1.0, w4=2.0, w8=3.0), Random(1)
    for _ in range(400):
        width = random.choice((1, 1, 4, 8))
        true = {1: 1.0, 4: 4.0, 8: 3.0}[width]
        curve.observe(width, 0, true * random.uniform(0.9, 1.1))
    prices = curve.prices(0)
    assert prices[4] / prices[1] == pytest.approx(4.0, rel=0.1)
    assert prices[8] / prices[1] == pytest.approx(3.0, rel=0.1)


def test_one_hiccup_changes_little() -> None:
    curve = measured(w1=1.0, w4=2.0)
    for _ in range(30):
        curve.observe(1, 0, 1.0)
    curve.observe(1, 0, 60.0)
    assert curve.seconds(1, 0) < 1.2


@pytest.mark.parametrize(("width", "seconds"), [(0, 1.0), (MAX_WIDTH + 1, 1.0), (1, 0.0), (1, -1.0)])
def test_what_can_not_be_is_not_learnt(width: int, seconds: float) -> None:
    curve = measured(w1=1.0)
    curve.observe(width, 0, seconds)
    assert curve.prices(0)[1] == 1.0
    assert curve.level.value == 1.0


def test_depths_start_from_their_neighbour_and_go_their_own_way() -> None:
    curve = measured(w1=1.0, w4=2.0)
    assert curve.prices(3000) == curve.prices(0)
    for _ in range(200):
        curve.observe(1, 3000, 2.0)
        curve.observe(1, 100, 1.0)
    assert curve.seconds(1, 4000) == pytest.approx(2.0, rel=0.1)
    assert curve.seconds(1, 500) == pytest.approx(1.0, rel=0.1)


def test_depths_double() -> None:
    curve = measured(w1=1.0)
    tables = {depth: id(curve.prices(depth)) for depth in (0, 1, 512, 513, 1024, 1025, 2048, 2049)}
    assert len({tables[0], tables[1], tables[512]}) == 1
    assert tables[513] == tables[1024] != tables[512]
    assert tables[1025] == tables[2048] != tables[1024]
    assert tables[2049] != tables[2048]


def test_a_table_that_no_longer_fits_is_noticed() -> None:
    curve = measured(w1=1.0, w8=2.0)
    for _ in range(40):
        curve.observe(8, 0, 2.0)
        curve.observe(1, 0, 1.0)
    assert curve.fits
    for _ in range(20):
        curve.observe(8, 0, 40.0)
        curve.observe(1, 0, 0.05)
    assert not curve.fits
    curve.forget()
    assert curve.fits
    assert not curve.known


def test_tables_of_a_pair_share_a_level() -> None:
    prices = Prices()
    prices.main.measure(1, 0, [1.0])
    prices.draft.measure(1, 0, [0.1])
    for _ in range(60):
        prices.main.observe(1, 0, 1.5)
    assert prices.main.level.value > 1.2
    assert prices.draft.seconds(1, 0) > 0.12
    prices.forget()
    assert prices.main.level.value == 1.0
    assert prices.fit


def test_it_survives_a_restart_at_the_level_it_had() -> None:
    curve = measured(w1=1.0, w4=2.0)
    curve.observe(4, 3000, 5.0)
    restored = Curve()
    restored.restore(json.loads(json.dumps(curve.as_dict())))
    for depth in (0, 3000):
        assert restored.prices(depth)[4] == pytest.approx(curve.seconds(4, depth))
        assert restored.prices(depth)[2] == pytest.approx(curve.seconds(2, depth))


@pytest.mark.parametrize(
    "data",
    [
        {"0": {"1": [0.0, 1.0]}},
        {"0": {"1": [-1.0, 1.0]}},
        {"0": {"1": [float("nan"), 1.0]}},
        {"0": {"1": [float("inf"), 1.0]}},
        {"0": {"0": [1.0, 1.0]}},
        {"0": {"66": [1.0, 1.0]}},
        {"0": {"1": [1.0, 0.0]}},
        {"0": {"one": [1.0, 1.0]}},
        {"zero": {}},
        {"0": {"1": [1.0]}},
        {"0": {"1": "price"}},
        {"0": []},
        [],
    ],
)
def test_junk_is_refused(data: object) -> None:
    curve = measured(w1=1.0)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        curve.restore(data)  # type: ignore[arg-type]
    assert curve.prices(0)[1] == 1.0


@pytest.mark.parametrize(("depth", "same"), [(0, True), (512, True), (513, False), (2000, False)])
def test_short_texts_share_the_prices_of_the_calibration(depth: int, same: bool) -> None:
    curve = Curve()
    curve.measure(1, 0, [0.1])
    assert (curve.plain_seconds(depth) > 0.0) == same
    assert curve.prices(depth)[1] == 0.1
