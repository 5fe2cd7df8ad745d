"""Measuring what decodes cost on this machine, before the first prompt."""

import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median

from llamaspec.control.prices import MAX_WIDTH, Curve, Prices
from llamaspec.decode.ports import Backend, Feed

BUDGET_SECONDS = 2.0
_ORDER = (
    *(("main", 1), ("draft", 1), ("main", 2), ("main", 4), ("main", 8), ("draft", 2), ("check", 2)),
    *(("main", 16), ("check", 4), ("main", 3), ("main", 6), ("draft", 8), ("main", 12), ("check", 8)),
    *(("main", 5), ("draft", 64), ("main", 7), ("main", 10), ("main", 14), ("main", 9), ("main", 20)),
    *(("main", 24), ("main", 33), ("main", 28)),
)
"""Tables and widths, the important ones first: a slow machine has no time for all of them."""

_ENOUGH = 3  # samples of a width
_PROBE = 4  # a width to look at again
_MISFIT = 1.6  # of the relation of two prices, from which on they are measured anew
_SPREAD = 7919  # apart: experts of a mixture are chosen by token, and alike tokens would all take the same

Clock = Callable[[], float]


def calibrate(
    prices: Prices, main: Backend, draft: Backend | None, limit: int, clock: Clock = time.perf_counter
) -> None:
    """Fill the tables by decodes of made-up tokens, in at most BUDGET_SECONDS or a few decodes.

    `limit`: the longest draft. Widths are measured in turns, the important ones first. What has
    been measured before is looked at again and, where it no longer fits, measured anew; what there was no
    time for is measured now.
    """
    if prices.main.known and not _still_fit(prices, main, draft, clock):
        prices.forget()
    tables = {"main": _Table(prices.main, main, limit + 1, all_rows=True)}
    if draft is not None:
        tables["draft"] = _Table(prices.draft, draft, MAX_WIDTH, all_rows=False)
        tables["check"] = _Table(prices.check, draft, MAX_WIDTH, all_rows=True)
    missing = [(name, width) for name, width in _ORDER if name in tables and tables[name].lacks(width)]
    if not missing:
        return
    for table in tables.values():
        table.time(1, clock)  # the first decode reads the weights and sets things up
    deadline = clock() + BUDGET_SECONDS
    for _ in range(_ENOUGH):
        for name, width in missing:
            tables[name].sample(width, deadline, clock)


def _still_fit(prices: Prices, main: Backend, draft: Backend | None, clock: Clock) -> bool:
    """Whether what decodes cost, relative to each other, is still about what was measured.

    The level is set anew.
    """
    tables = [(prices.main, _Table(prices.main, main, _PROBE, all_rows=True))]
    if draft is not None:
        tables.append((prices.draft, _Table(prices.draft, draft, 1, all_rows=False)))
    ratios = []
    for curve, table in tables:
        if not curve.known:
            return False
        table.time(1, clock)
        for width in sorted({1, table.widest}):
            now = median(table.time(width, clock) for _ in range(_ENOUGH))
            ratios.append(now / curve.prices(0)[width])
    prices.main.level.value = ratios[0]
    return max(ratios) < _MISFIT * min(ratios)


class _Table:
    """One table to fill, up to a batch of `widest`."""

    def __init__(self, curve: Curve, backend: Backend, widest: int, *, all_rows: bool) -> None:
        self._curve = curve
        self._backend = backend
        self._all_rows = all_rows
        self.widest = min(widest, backend.batch_size, backend.max_rows if all_rows else MAX_WIDTH)
        self._samples: dict[int, list[float]] = defaultdict(list)

    def lacks(self, width: int) -> bool:
        """Whether a width that can be measured was not."""
        return width <= self.widest and not self._curve.measured(width)

    def sample(self, width: int, deadline: float, clock: Clock) -> None:
        """Measure a width once more, if there is time and it can be."""
        expected = self._curve.prices(0)[width] if self._samples else 0.0
        if not (self._samples and clock() + expected > deadline):
            self._samples[width].append(self.time(width, clock))
            self._curve.measure(width, 0, self._samples[width])

    def time(self, width: int, clock: Clock) -> float:
        """Seconds of one decode; the backend is left empty."""
        tokens = [_SPREAD * place % self._backend.vocab_size for place in range(1, width + 1)]
        started = clock()
        self._backend.decode([Feed(0, tokens, 0, rows=width if self._all_rows else 1)])
        seconds = clock() - started
        self._backend.truncate(0, 0)
        return seconds
