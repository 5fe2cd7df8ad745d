"""What the server did and does, for Prometheus, under llama-server's names where it has them.

Requests are counted when they end. Every method may be called from any thread.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from llamaspec.events import FinishReason
from llamaspec.settings import MAX_DRAFT, DrafterName
from llamaspec.stats import Stats, ratio

_OPENMETRICS = "application/openmetrics-text"
_WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_GAPS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
_LENGTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, MAX_DRAFT)


@dataclass(frozen=True, slots=True)
class Levels:
    """How things stand at the moment of a scrape.

    `decodes` are the batches that the main model has evaluated so far, `slots_in_decodes` the busy slots
    summed over them. `estimated_speedup` is that of late, None where it is not known.
    """

    slots_busy: int
    slots: int
    waiting: int
    kv_used: int
    kv_cells: int
    decodes: int
    slots_in_decodes: int
    estimated_speedup: float | None = None


class Metrics:
    """The server's metrics, in a registry of their own. `levels` is asked at every scrape."""

    def __init__(self, levels: Callable[[], Levels]) -> None:
        # Process-wide, as the library has it: a time of birth beside each series helps nobody here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._requests = self._counter("llamaspec_requests", "Requests by how they ended", "finish_reason")
        self._prompt_tokens = self._counter(
            "llamacpp:prompt_tokens", "Prompt tokens evaluated, without those reused from the cache"
        )
        self._cached_tokens = self._counter(
            "llamacpp:prompt_tokens_cached", "Prompt tokens reused from the cache"
        )
        self._prompt_seconds = self._counter("llamacpp:prompt_seconds", "Time spent on prompts")
        self._predicted_tokens = self._counter("llamacpp:tokens_predicted", "Tokens generated")
        self._predicted_seconds = self._counter(
            "llamacpp:tokens_predicted_seconds", "Time spent generating tokens"
        )
        self._drafted = self._counter("llamacpp:spec_decode_num_draft_tokens", "Draft tokens verified")
        self._accepted = self._counter("llamacpp:spec_decode_num_accepted_tokens", "Draft tokens accepted")
        self._drafts = self._counter("llamacpp:spec_decode_num_drafts", "Rounds that verified a draft")
        self._accepted_at = self._counter(
            "llamacpp:spec_decode_num_accepted_tokens_per_pos",
            "Accepted by position in the draft",
            "position",
        )
        self._drafted_at = self._counter(
            "llamaspec_draft_tokens_per_position",
            "Draft tokens verified, by position in the draft",
            "position",
        )
        self._of_drafter = [
            self._counter(f"llamaspec_drafter_{name}", f"{what}, by the drafter that was asked", "drafter")
            for name, what in (
                ("draft_tokens", "Draft tokens verified"),
                ("accepted_tokens", "Draft tokens accepted"),
                ("rounds", "Rounds with a draft"),
                ("seconds", "Time spent drafting"),
            )
        ]
        self._of_source = [
            self._counter(f"llamaspec_source_{name}", f"{what}, by who proposed them", "source")
            for name, what in (
                ("draft_tokens", "Draft tokens verified"),
                ("accepted_tokens", "Draft tokens accepted"),
            )
        ]
        self._first_token = self._histogram(
            "llamaspec_time_to_first_token_seconds", "From a request's arrival to its first token", _WAITS
        )
        self._gap = self._histogram(
            "llamaspec_inter_token_latency_seconds",
            "From one token to the next; 0 within a round, but for its first token",
            _GAPS,
        )
        self._queue = self._histogram(
            "llamaspec_queue_seconds", "From a request's arrival until it has a slot", _WAITS
        )
        self._lengths = self._histogram(
            "llamaspec_accepted_length", "Draft tokens accepted in a round that drafted", _LENGTHS
        )
        self._start_at_zero()
        self._registry.register(_AtScrape(levels, self))
        self._lock = threading.Lock()
        self._window = _Window()

    def started(self, queue_seconds: float) -> None:
        """A request has got a slot, so long after its arrival."""
        self._queue.observe(queue_seconds)

    def first_token(self, seconds: float) -> None:
        """A request's first token is out, so long after its arrival."""
        self._first_token.observe(seconds)

    def token_gaps(self, seconds: Iterable[float]) -> None:
        """Times from one token of a request to the next."""
        for gap in seconds:
            self._gap.observe(gap)

    def finished(self, stats: Stats, reason: FinishReason) -> None:
        """A request has ended: to be called once for each, also for one that never had a slot."""
        self._requests.labels(reason.value).inc()
        prompt_tokens = stats.prompt_tokens - stats.cached_tokens
        self._prompt_tokens.inc(prompt_tokens)
        self._cached_tokens.inc(stats.cached_tokens)
        self._prompt_seconds.inc(stats.prompt_seconds)
        self._predicted_tokens.inc(stats.predicted_tokens)
        self._predicted_seconds.inc(stats.predicted_seconds)
        self._count_drafts(stats)
        with self._lock:
            self._window.add(stats, prompt_tokens)

    def _count_drafts(self, stats: Stats) -> None:
        self._drafted.inc(stats.draft_n)
        self._accepted.inc(stats.draft_n_accepted)
        self._drafts.inc(stats.drafted_at[0] if stats.drafted_at else 0)
        for counter, counts in ((self._drafted_at, stats.drafted_at), (self._accepted_at, stats.accepted_at)):
            for position, count in enumerate(counts):
                counter.labels(str(position)).inc(count)
        for drafter, counted in stats.drafters.items():
            values = (counted.drafted, counted.accepted, counted.rounds, counted.seconds)
            for counter, value in zip(self._of_drafter, values, strict=True):
                counter.labels(drafter).inc(value)
        for source, tokens in stats.sources.items():
            for counter, value in zip(self._of_source, (tokens.drafted, tokens.accepted), strict=True):
                counter.labels(source).inc(value)
        # Rounds that kept at least i tokens, less those that kept more.
        kept = [*stats.drafted_at[:1], *stats.accepted_at, 0]
        for length in range(len(kept) - 1):
            for _ in range(kept[length] - kept[length + 1]):
                self._lengths.observe(length)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text of /metrics and its content type: OpenMetrics where the Accept header names it."""
        # The library's own choice of a format fails on versions that are no numbers.
        if _OPENMETRICS in (kind.partition(";")[0].strip().lower() for kind in accept.split(",")):
            # Its default writes the colons of samples, though not those of families, as underscores.
            text = openmetrics.generate_latest(self._registry, escaping=openmetrics.ALLOWUTF8)  # type: ignore[no-untyped-call]
            return text, openmetrics.CONTENT_TYPE_LATEST
        # llama-server has it as a counter, whose name the library would end in _total.
        kind = b"# TYPE llamacpp:n_tokens_max "
        text = generate_latest(self._registry).replace(kind + b"gauge", kind + b"counter")
        return text, CONTENT_TYPE_PLAIN_0_0_4

    def take_window(self) -> "_Window":
        """What ended since the last scrape; the next one starts anew."""
        with self._lock:
            window, self._window = self._window, _Window(self._window.longest)
        return window

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, what, buckets=buckets, registry=self._registry)

    def _start_at_zero(self) -> None:
        """A series that is there from the start: its first event is a rise that can be seen."""
        for reason in FinishReason:
            self._requests.labels(reason.value)
        for drafter in get_args(DrafterName):
            for counter in self._of_drafter:
                counter.labels(drafter)
        for source in set(get_args(DrafterName)) - {"cascade"}:
            for counter in self._of_source:
                counter.labels(source)


@dataclass(slots=True)
class _Window:
    """What ended between two scrapes; `longest` is the longest sequence of all, in tokens."""

    longest: int = 0
    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    later_tokens: int = 0
    later_seconds: float = 0.0

    def add(self, stats: Stats, prompt_tokens: int) -> None:
        self.longest = max(self.longest, stats.prompt_tokens + stats.predicted_tokens)
        self.prompt_tokens += prompt_tokens
        self.prompt_seconds += stats.prompt_seconds
        self.later_tokens += stats.later_tokens
        self.later_seconds += stats.predicted_seconds


class _AtScrape(Collector):
    """What is read off rather than counted up."""

    def __init__(self, levels: Callable[[], Levels], metrics: Metrics) -> None:
        self._levels = levels
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        now = self._levels()
        window = self._metrics.take_window()
        yield CounterMetricFamily(
            "llamacpp:n_decode", "Batches that the main model evaluated", value=now.decodes
        )
        gauges = {
            "llamacpp:n_busy_slots_per_decode": (
                "Busy slots per batch, on average",
                ratio(now.slots_in_decodes, now.decodes) or 0.0,
            ),
            "llamacpp:n_tokens_max": ("Tokens of the longest sequence so far", window.longest),
            "llamacpp:prompt_tokens_seconds": (
                "Prompt tokens per second, of the requests that ended since the last scrape",
                ratio(window.prompt_tokens, window.prompt_seconds) or 0.0,
            ),
            "llamacpp:predicted_tokens_seconds": (
                "Generated tokens per second, of the requests that ended since the last scrape",
                ratio(window.later_tokens, window.later_seconds) or 0.0,
            ),
            "llamacpp:requests_processing": ("Requests that have a slot", now.slots_busy),
            "llamacpp:requests_deferred": ("Requests that wait for a slot", now.waiting),
            "llamaspec_slots": ("Slots", now.slots),
            "llamaspec_slots_busy": ("Slots in use", now.slots_busy),
            "llamaspec_kv_cells": ("Cells of the main model's KV cache", now.kv_cells),
            "llamaspec_kv_cells_used": ("Cells in use, those kept for later included", now.kv_used),
            "llamaspec_estimated_speedup": ("Speed against plain decoding, estimated", now.estimated_speedup),
        }
        for name, (what, value) in gauges.items():
            if value is not None:
                yield GaugeMetricFamily(name, what, value=value)
