"""Figures know how sure they are."""

import math
from statistics import stdev

import pytest

from llamaspec.figures import Figure, Ratio, figure, ratio


def test_a_figure_is_the_mean_of_the_prompts_medians_with_the_spread_within_prompts() -> None:
    measured = figure({"one": [9.0, 10.0, 30.0], "other": [20.0, 20.0, 20.0]})
    assert measured is not None
    assert measured.value == 15.0
    assert measured.spread == pytest.approx(math.sqrt((stdev([9, 10, 30]) ** 2 * 2 + 0) / 4))
    assert measured.count == 6
    assert str(Figure(value=9.789, spread=0.218)) == "9.79 ± 0.22"


def test_what_was_measured_once_has_no_spread() -> None:
    assert str(figure({"one": [9.789]})) == "9.79"
    assert str(figure({"one": [9.789, 9.789]})) == "9.79 ± 0.00"


def test_prompts_weigh_the_same_however_often_they_were_tried() -> None:
    measured = ratio({"one": [4.0, 1.0], "other": [0.5]})
    assert measured is not None and measured.value == pytest.approx(1.0)


def test_nothing_measured_is_no_figure() -> None:
    assert figure({}) is None
    assert ratio({"prompt": []}) is None


def test_prompts_that_were_not_repeated_vary_among_each_other() -> None:
    measured = figure({"one": [10.0], "other": [14.0]})
    assert measured is not None
    assert measured.spread == pytest.approx(stdev([10, 14]))


def test_a_ratios_interval_is_students() -> None:
    """Four ratios with logs 0.1 ± 0.1: by hand, 3.182 standard errors."""
    logs = [0.0, 0.0, 0.2, 0.2]
    measured = ratio({str(n): [math.exp(log)] for n, log in enumerate(logs)})
    assert measured is not None
    margin = 3.182 * stdev(logs) / 2
    assert measured.value == pytest.approx(math.exp(0.1))
    assert measured.low == pytest.approx(math.exp(0.1 - margin))
    assert measured.high == pytest.approx(math.exp(0.1 + margin))


def test_an_interval_of_many_is_near_to_the_normal_distributions() -> None:
    """41 and 121 ratios: t is 2.021 with 40 degrees of freedom, 1.980 with 120."""
    for count, t in ((41, 2.021), (121, 1.980)):
        logs = [0.1 * (-1) ** n for n in range(count)]
        measured = ratio({str(n): [math.exp(log)] for n, log in enumerate(logs)})
        assert measured is not None
        margin = math.log(measured.high / measured.low) / 2
        assert margin == pytest.approx(t * stdev(logs) / math.sqrt(count), rel=0.002)


def test_repeats_tell_the_noise_apart_from_the_prompts() -> None:
    """Prompts that differ widely, each measured alike twice: the ratio is sure."""
    measured = ratio({"code": [2.0, 2.02], "story": [1.1, 1.11]})
    assert measured is not None
    assert measured.verdict == "faster"
    assert measured.low > 1.4


@pytest.mark.parametrize(
    ("samples", "verdict"),
    [
        ([1.2, 1.21, 1.19, 1.2], "faster"),
        ([0.8, 0.81, 0.79, 0.8], "slower"),
        ([1.2, 0.9, 1.1, 0.95], "within noise"),
        ([1.5, 1.5], "too few"),
        ([1.5], "too few"),
    ],
)
def test_a_difference_within_the_noise_is_no_gain(samples: list[float], verdict: str) -> None:
    measured = ratio({"prompt": samples})
    assert measured is not None
    assert measured.verdict == verdict


def test_a_ratio_shows_its_interval() -> None:
    assert str(Ratio(value=1.489, low=1.41, high=1.57, count=8)) == "1.49× (1.41 to 1.57)"
