"""Times as their percentiles and the five numbers of a box plot."""

from collections.abc import Sequence

import numpy as np

from llamaspec.bench.report import Latency


def latency(seconds: Sequence[float]) -> Latency | None:
    """Percentiles interpolate between the two nearest; None of no times."""
    if not seconds:
        return None
    low, quartile, p50, third, p95, p99, high = (
        float(value) for value in np.percentile(seconds, (0, 25, 50, 75, 95, 99, 100))
    )
    return Latency(
        p50=p50, p95=p95, p99=p99, low=low, first_quartile=quartile, third_quartile=third, high=high
    )
