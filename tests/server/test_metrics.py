import threading

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from llamaspec.events import FinishReason
from llamaspec.server.metrics import Levels, Metrics
from llamaspec.stats import Stats

IDLE = Levels(slots_busy=0, slots=4, waiting=0, kv_used=0, kv_cells=4096, decodes=0, slots_in_decodes=0)


def values(metrics: Metrics) -> dict[str, float]:
    """One scrape: name and labels → value."""
    text, _ = metrics.render()
    return {
        sample.name + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items()): sample.value
        for family in plain_text(text.decode())
        for sample in family.samples
    }


def some_stats() -> Stats:
    stats = Stats(prompt_tokens=30, cached_tokens=10, prompt_seconds=0.5)
    stats.predicted_tokens, stats.predicted_seconds = 9, 2.0
    for sources, accepted in (
        (["model", "ngram", "ngram"], 3),
        (["model", "model"], 1),
        (["ngram"], 0),
        ([], 0),
    ):
        stats.record_round(0.25, 0.1)
        stats.record_draft("cascade" if sources else "", sources, accepted)
    return stats


def test_requests_tokens_and_times_are_added_up() -> None:
    metrics = Metrics(lambda: IDLE)
    metrics.finished(some_stats(), FinishReason.STOP)
    metrics.finished(some_stats(), FinishReason.LENGTH)
    metrics.finished(Stats(), FinishReason.CANCELLED)
    seen = values(metrics)
    assert seen["llamaspec_requests_total{finish_reason=stop}"] == 1
    assert seen["llamaspec_requests_total{finish_reason=length}"] == 1
    assert seen["llamaspec_requests_total{finish_reason=cancelled}"] == 1
    assert seen["llamaspec_requests_total{finish_reason=error}"] == 0
    assert seen["llamacpp:prompt_tokens_total"] == 40
    assert seen["llamacpp:prompt_tokens_cached_total"] == 20
    assert seen["llamacpp:prompt_seconds_total"] == 1.0
    assert seen["llamacpp:tokens_predicted_total"] == 18
    assert seen["llamacpp:tokens_predicted_seconds_total"] == 4.0
    assert seen["llamacpp:n_tokens_max_total"] == 39  # so a parser calls what is told as a counter


def test_drafts_are_counted_by_drafter_source_and_position() -> None:
    metrics = Metrics(lambda: IDLE)
    metrics.finished(some_stats(), FinishReason.STOP)
    seen = values(metrics)
    assert seen["llamacpp:spec_decode_num_draft_tokens_total"] == 6
    assert seen["llamacpp:spec_decode_num_accepted_tokens_total"] == 4
    assert seen["llamacpp:spec_decode_num_drafts_total"] == 3
    assert [seen[f"llamaspec_draft_tokens_per_position_total{{position={i}}}"] for i in range(3)] == [3, 2, 1]
    accepted = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total"
    assert [seen[f"{accepted}{{position={i}}}"] for i in range(3)] == [2, 1, 1]
    assert seen["llamaspec_drafter_draft_tokens_total{drafter=cascade}"] == 6
    assert seen["llamaspec_drafter_accepted_tokens_total{drafter=cascade}"] == 4
    assert seen["llamaspec_drafter_rounds_total{drafter=cascade}"] == 3
    assert seen["llamaspec_drafter_seconds_total{drafter=cascade}"] == 0.75
    assert seen["llamaspec_drafter_draft_tokens_total{drafter=model}"] == 0
    assert seen["llamaspec_source_draft_tokens_total{source=model}"] == 3
    assert seen["llamaspec_source_accepted_tokens_total{source=model}"] == 2
    assert seen["llamaspec_source_draft_tokens_total{source=ngram}"] == 3
    assert seen["llamaspec_source_accepted_tokens_total{source=ngram}"] == 2


def test_accepted_lengths_are_those_of_the_rounds_that_drafted() -> None:
    metrics = Metrics(lambda: IDLE)
    metrics.finished(some_stats(), FinishReason.STOP)
    seen = values(metrics)
    below = [seen[f"llamaspec_accepted_length_bucket{{le={edge}}}"] for edge in ("0.0", "1.0", "2.0", "3.0")]
    assert below == [1, 2, 2, 3]
    assert seen["llamaspec_accepted_length_sum"] == 4
    assert seen["llamaspec_accepted_length_count"] == 3


def test_waits_are_histograms() -> None:
    metrics = Metrics(lambda: IDLE)
    metrics.started(0.0)
    metrics.first_token(0.3)
    metrics.token_gaps([0.04, 0.0, 0.0])
    seen = values(metrics)
    assert seen["llamaspec_queue_seconds_count"] == 1
    assert seen["llamaspec_time_to_first_token_seconds_bucket{le=0.25}"] == 0
    assert seen["llamaspec_time_to_first_token_seconds_bucket{le=0.5}"] == 1
    assert seen["llamaspec_inter_token_latency_seconds_count"] == 3
    assert seen["llamaspec_inter_token_latency_seconds_sum"] == 0.04


def test_levels_are_read_at_every_scrape() -> None:
    levels = [
        Levels(3, 4, 7, kv_used=300, kv_cells=4096, decodes=10, slots_in_decodes=25, estimated_speedup=1.5),
        IDLE,
    ]
    metrics = Metrics(lambda: levels.pop(0))
    busy, idle = values(metrics), values(metrics)
    assert busy["llamacpp:requests_processing"] == busy["llamaspec_slots_busy"] == 3
    assert busy["llamacpp:requests_deferred"] == 7
    assert busy["llamacpp:n_decode_total"] == 10
    assert busy["llamacpp:n_busy_slots_per_decode"] == 2.5
    assert busy["llamaspec_slots"] == 4
    assert (busy["llamaspec_kv_cells_used"], busy["llamaspec_kv_cells"]) == (300, 4096)
    assert busy["llamaspec_estimated_speedup"] == 1.5
    assert idle["llamacpp:n_busy_slots_per_decode"] == 0
    assert "llamaspec_estimated_speedup" not in idle  # unknown is not 0


def test_speeds_are_those_since_the_last_scrape() -> None:
    metrics = Metrics(lambda: IDLE)
    metrics.finished(some_stats(), FinishReason.STOP)
    first, second = values(metrics), values(metrics)
    assert first["llamacpp:prompt_tokens_seconds"] == 40.0
    assert first["llamacpp:predicted_tokens_seconds"] == 4.0  # 8 tokens behind the first in 2 s
    assert second["llamacpp:prompt_tokens_seconds"] == second["llamacpp:predicted_tokens_seconds"] == 0.0
    assert second["llamacpp:n_tokens_max_total"] == 39


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text; version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0",
        ),
        ("application/openmetrics-text; version=", "application/openmetrics-text"),
        ("text/plain; version=nonsense, ;;;=,", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=nonsense", "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_the_format_is_the_one_that_is_accepted(accept: str, content_type: str) -> None:
    metrics = Metrics(lambda: IDLE)
    metrics.finished(some_stats(), FinishReason.STOP)
    text, told = metrics.render(accept)
    assert told.startswith(content_type)
    parse = openmetrics if "openmetrics" in told else plain_text
    names = {sample.name for family in parse(text.decode()) for sample in family.samples}
    assert "llamacpp:prompt_tokens_total" in names
    assert not any(name.endswith("_created") for name in names)


def test_two_servers_do_not_share_their_counts() -> None:
    one, other = Metrics(lambda: IDLE), Metrics(lambda: IDLE)
    one.finished(some_stats(), FinishReason.STOP)
    assert values(other)["llamacpp:tokens_predicted_total"] == 0


def test_counts_from_several_threads_are_all_there() -> None:
    metrics = Metrics(lambda: IDLE)

    def finish() -> None:
        for _ in range(200):
            metrics.finished(some_stats(), FinishReason.STOP)

    threads = [threading.Thread(target=finish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = values(metrics)
    assert seen["llamaspec_requests_total{finish_reason=stop}"] == 800
    assert seen["llamaspec_accepted_length_count"] == 2400
