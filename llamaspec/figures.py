"""Measured figures that say how sure they are: a value with its spread, and a ratio with its interval."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Literal

from pydantic import Field

from llamaspec.settings import Settings

Verdict = Literal["faster", "slower", "within noise", "too few"]

FEWEST = 3
"""Samples under which nothing is concluded."""

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


class Figure(Settings):
    """`value` is the mean over prompts of each one's median, `spread` the standard deviation of repeats, or
    of the prompts where each was measured once. What was measured once in all has none."""

    value: float = Field(allow_inf_nan=False)
    spread: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    count: int = Field(1, ge=1)

    def __str__(self) -> str:
        alone = self.count == 1 and not self.spread
        return f"{self.value:.2f}" if alone else f"{self.value:.2f} ± {self.spread:.2f}"


class Ratio(Settings):
    """How many times as fast: a geometric mean, and its 95 % interval from `low` to `high`.

    There is no interval where there were too few samples to conclude anything from.
    """

    value: float = Field(gt=0.0, allow_inf_nan=False)
    low: float | None = Field(None, ge=0.0, allow_inf_nan=False)
    high: float | None = Field(None, gt=0.0, allow_inf_nan=False)
    count: int = Field(1, ge=1)

    @property
    def interval(self) -> tuple[float, float] | None:
        if self.low is None or self.high is None or self.count < FEWEST:
            return None
        return self.low, self.high

    @property
    def verdict(self) -> Verdict:
        """A difference whose interval holds 1 is no difference."""
        if self.interval is None:
            return "too few"
        low, high = self.interval
        if low > 1.0:
            return "faster"
        return "slower" if high < 1.0 else "within noise"

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.value:.2f}×"
        low, high = self.interval
        return f"{self.value:.2f}× ({low:.2f} to {high:.2f})"


def counted(number: int, what: str) -> str:
    """As 1 prompt, 2,000 prompts."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def figure(samples: Mapping[str, Sequence[float]]) -> Figure | None:
    """Of samples by prompt; None where there are none."""
    there = [several for several in samples.values() if several]
    if not there:
        return None
    deviation, _ = _deviation(there)
    value = fmean(median(several) for several in there)
    return Figure(value=value, spread=deviation, count=sum(map(len, there)))


def ratio(samples: Mapping[str, Sequence[float]]) -> Ratio | None:
    """Of paired ratios (each above 0) by prompt, in which every prompt weighs the same; None without any.

    Where prompts were repeated, the interval is that of a new measurement of the same prompts, else that
    of other prompts of the same sort, which is wider.
    """
    there = [several for several in samples.values() if several]
    if not there:
        return None
    count = sum(map(len, there))
    logs = [[math.log(sample) for sample in several] for several in there]
    centre = fmean(fmean(several) for several in logs)
    if count < FEWEST:
        return Ratio(value=math.exp(centre), count=count)
    deviation, freedom = _deviation(logs)
    # Every prompt weighs the same: the variance of a mean of means.
    share = math.sqrt(sum(1 / len(several) for several in logs)) / len(logs)
    margin = _t95(freedom) * deviation * share
    return Ratio(
        value=math.exp(centre), low=math.exp(centre - margin), high=math.exp(centre + margin), count=count
    )


def _t95(freedom: int) -> float:
    """Beyond the table by the first term that it differs in from the normal distribution's: within 0.003."""
    return _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.4 / freedom


def _deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation and degrees of freedom: within prompts where any was repeated, else over all."""
    repeated = [group for group in groups if len(group) > 1]
    if not repeated:
        pooled = [sample for group in groups for sample in group]
        return (stdev(pooled), len(pooled) - 1) if len(pooled) > 1 else (0.0, 0)
    freedom = sum(len(group) - 1 for group in repeated)
    squares = sum((len(group) - 1) * stdev(group) ** 2 for group in repeated)
    return math.sqrt(squares / freedom), freedom
