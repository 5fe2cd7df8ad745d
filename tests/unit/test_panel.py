"""The statistics as a person reads them."""

from typing import Any

from llamaspec.console.panel import stats_lines
from llamaspec.events import FinishReason
from llamaspec.stats import Stats

PRICES: dict[str, Any] = {
    "depth": 100,
    "main_seconds": {1: 0.035, 2: 0.06, 4: 0.07},
    "draft_step_seconds": 0.0125,
    "break_even": {
        "lookup": {"acceptance": 0.42, "length": 2, "most": 2.0},
        "model": {"acceptance": None, "length": 3, "most": 0.83},
    },
}


def lines(stats: Stats, **more: Any) -> dict[str, str]:
    found = list(stats_lines(stats, FinishReason.STOP, **more))
    assert len(found) <= 10
    return dict(found)


def answered() -> Stats:
    stats = Stats(prompt_tokens=5, prompt_seconds=0.5, time_to_first_token=0.5)
    stats.record_tokens(1, 0.0)
    return stats


def test_without_speculation_nothing_is_said_of_it() -> None:
    assert list(lines(answered())) == ["prompt", "predicted"]


def test_drafts_are_told_by_drafter_with_their_end_and_an_estimate() -> None:
    stats = answered()
    for drafter, sources, accepted in (
        ("ngram", ["ngram"] * 4, 3),
        ("cascade", ["model", "model", "ngram", "ngram"], 2),
        ("", [], 0),
    ):
        stats.record_round(0.02, 0.1)
        stats.record_draft(drafter, sources, accepted)
    stats.record_tokens(8, 0.4)
    stats.stops.update({"ceiling": 1, "expected gain": 2})
    stats.undrafted["no match"] = 7
    stats.record_plain(7, 0.1)
    stats.predicted_seconds = 0.1 * (stats.predicted_tokens - 1) / 1.7
    said = lines(stats, prices=PRICES)
    assert said["drafted"].startswith("8 tokens, 5 accepted (62 %)")
    assert said["by drafter"] == (
        "ngram 4 tokens, 75 % accepted, 5.0 ms each; cascade 4 tokens, 50 % accepted, 5.0 ms each; "
        "tokens from ngram 6 (50 %), model 2 (100 %)"
    )
    assert said["ended by"] == "expected gain 2, ceiling 1, rounds without a draft 7"
    assert said["speed"] == "≈ 1.7× plain (an estimate: by the price of plain rounds here)"
    assert said["price"] == (
        "main model 35, 60, 70 ms for 1, 2, 4 tokens at once, draft model 12.5 ms a token; "
        "a draft model never pays, looking up pays from 42 % accepted"
    )
    compare = {"speedup": 1.834, "plain": {"per_second": 13.71}}
    assert lines(stats, compare=compare)["speed"] == "1.83× plain (13.7 tokens/s), measured in turns"


def test_where_nothing_was_drafted_it_says_why() -> None:
    stats = answered()
    stats.rounds = 30
    stats.undrafted.update({"no match": 20, "expected gain": 10})
    said = lines(stats, prices=PRICES)
    assert said["not drafted"] == (
        "at these prices a draft model can't pay: 0.83× plain if it were always right; "
        "nothing that could be looked up in 20 of 30 rounds; "
        "in 10 rounds what was offered was worth less than its check"
    )
    assert "speed" not in said
    promising = {**PRICES, "break_even": {"model": {"acceptance": 0.7, "length": 3, "most": 2.0}}}
    assert "didn't promise enough" in lines(stats, prices=promising)["not drafted"]
