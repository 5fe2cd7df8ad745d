"""Measured figures that say how sure they are: a value with its spread, and a ratio with its interval."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, geometric_mean, median, stdev
from typing import Literal

from pydantic import Field

from llamaspec.settings import Settings

Verdict = Literal["faster", "slower", "within noise", "too few"]

FEWEST = 3
"""Samples under which nothing is concluded."""

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom; beyond, the normal distribution's is near.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_T95_MANY = 1.96


class Figure(Settings):
    """`value` is the mean over prompts of each one's median, `spread` a standard deviation."""

    value: float = Field(allow_inf_nan=False)
    spread: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    count: int = Field(1, ge=1)

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.spread:.2f}"


class Ratio(Settings):
    """How many times as fast: a geometric mean, and its 95 % interval from `low` to `high`."""

    value: float = Field(gt=0.0, allow_inf_nan=False)
    low: float = Field(ge=0.0, allow_inf_nan=False)
    high: float = Field(gt=0.0, allow_inf_nan=False)
    count: int = Field(1, ge=1)

    @property
    def verdict(self) -> Verdict:
        """A difference whose interval holds 1 is no difference."""
        if self.count < FEWEST:
            return "too few"
        if self.low > 1.0:
            return "faster"
        return "slower" if self.high < 1.0 else "within noise"

    def __str__(self) -> str:
        return f"{self.value:.2f}× ({self.low:.2f} to {self.high:.2f})"


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
    deviation, freedom = _deviation(logs)
    if freedom == 0:
        return Ratio(value=math.exp(centre), low=0.0, high=_HIGHEST, count=count)
    # Every prompt weighs the same: the variance of a mean of means.
    share = math.sqrt(sum(1 / len(several) for several in logs)) / len(logs)
    t = _T95[freedom - 1] if freedom <= len(_T95) else _T95_MANY
    margin = min(t * deviation * share, _LARGEST_MARGIN)
    return Ratio(
        value=math.exp(centre), low=math.exp(centre - margin), high=math.exp(centre + margin), count=count
    )


def mean_ratio(ratios: Sequence[float]) -> float | None:
    """The geometric mean; None without any."""
    return geometric_mean(ratios) if ratios else None


_LARGEST_MARGIN = 20.0
_HIGHEST = math.exp(_LARGEST_MARGIN)


def _deviation(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation and degrees of freedom: within prompts where any was repeated, else over all."""
    repeated = [group for group in groups if len(group) > 1]
    if not repeated:
        pooled = [sample for group in groups for sample in group]
        return (stdev(pooled), len(pooled) - 1) if len(pooled) > 1 else (0.0, 0)
    freedom = sum(len(group) - 1 for group in repeated)
    squares = sum((len(group) - 1) * stdev(group) ** 2 for group in repeated)
    return math.sqrt(squares / freedom), freedom
