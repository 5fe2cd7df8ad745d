import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaspec.stats import Stats, ratio


def test_ratios_without_a_denominator_are_none() -> None:
    assert ratio(1, 0) is None
    assert ratio(1, 4) == 0.25
    empty = Stats()
    assert empty.acceptance_rate is None
    assert empty.mean_accepted_length is None
    assert empty.token_latency is None
    assert empty.acceptance_per_position == []


def test_drafts_are_counted_by_position() -> None:
    stats = Stats()
    for width, accepted in ((3, 3), (3, 1), (1, 0), (0, 0)):
        stats.record_draft("model", ["model"] * width, accepted)
    assert stats.drafted_at == [3, 2, 2]
    assert stats.accepted_at == [2, 1, 1]
    assert stats.acceptance_per_position == [2 / 3, 1 / 2, 1 / 2]
    assert stats.acceptance_rate == 4 / 7
    assert stats.mean_accepted_length == 4 / 3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda pair: (max(pair), min(pair)))))
def test_sums_over_positions_are_the_totals(rounds: list[tuple[int, int]]) -> None:
    stats = Stats()
    for width, accepted in rounds:
        stats.record_draft("model", ["model"] * width, accepted)
    assert stats.draft_n == sum(width for width, _ in rounds)
    assert stats.draft_n_accepted == sum(accepted for _, accepted in rounds)
    assert all(0.0 <= share <= 1.0 for share in stats.acceptance_per_position)
    assert len(stats.acceptance_per_position) == max((width for width, _ in rounds), default=0)


def test_tokens_of_one_round_share_its_time() -> None:
    stats = Stats()
    stats.record_tokens(1, 0.01)
    stats.record_tokens(3, 0.6)
    stats.record_tokens(1, 0.2)
    assert stats.predicted_tokens == 5
    assert stats.latencies == [0.6, 0.0, 0.0, 0.2]  # the first token follows none


def test_the_speed_is_of_the_tokens_behind_the_first() -> None:
    stats = Stats(predicted_seconds=2.0)
    assert stats.tokens_per_second is None
    stats.record_tokens(1, 0.0)
    assert stats.tokens_per_second is None, "the first comes with the prompt"
    stats.record_tokens(4, 2.0)
    assert stats.tokens_per_second == 2.0
    together = Stats(texts=2, predicted_tokens=10, predicted_seconds=4.0)
    assert together.tokens_per_second == 2.0


@given(st.lists(st.floats(0, 10), min_size=1, max_size=300))
def test_percentiles_are_the_nearest_rank(latencies: list[float]) -> None:
    found = Stats(latencies=latencies).token_latency
    assert found is not None
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        at_most = sum(latency <= found[name] for latency in latencies)
        below = sum(latency < found[name] for latency in latencies)
        assert found[name] in latencies
        assert at_most >= math.floor(share * len(latencies))
        assert below < share * len(latencies) or below == 0


def test_overhead_is_what_is_left_and_never_negative() -> None:
    stats = Stats(predicted_seconds=2.0, draft_seconds=0.5, verify_seconds=1.25)
    assert stats.overhead_seconds == pytest.approx(0.25)
    assert Stats(predicted_seconds=1.0, verify_seconds=1.5).overhead_seconds == 0.0


def test_an_estimate_is_bounded_by_what_a_round_gives() -> None:
    stats = Stats(predicted_seconds=1.0)
    stats.record_round(0.0, 1.0)
    stats.record_draft("model", ["model"], 1)
    stats.record_tokens(1, 0.1)
    stats.record_tokens(2, 1.0)
    stats.record_plain(2, 0.75)
    assert stats.estimated_speedup == 1.5
    stats.record_plain(2, 20.0)  # a plain round was measured while something else had the machine
    assert stats.estimated_speedup == 2.0


def test_the_shape_for_json_is_complete_and_plain() -> None:
    required = {
        "prompt_tokens",
        "prompt_seconds",
        "predicted_tokens",
        "predicted_seconds",
        "predicted_per_second",
        "draft_n",
        "draft_n_accepted",
        "acceptance_rate",
        "acceptance_per_position",
        "mean_accepted_length",
        "rounds",
        "draft_seconds",
        "verify_seconds",
        "overhead_seconds",
        "time_to_first_token",
        "token_latency",
    }
    stats = Stats(prompt_tokens=5, prompt_seconds=0.5)
    stats.record_round(0.25, 0.5)
    stats.record_draft("cascade", ["model", "ngram"], 1)
    stats.record_tokens(2, 0.1)
    for shown in (Stats().as_dict(), stats.as_dict()):
        assert required <= shown.keys()
        assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert stats.as_dict()["prompt_per_second"] == 10.0
