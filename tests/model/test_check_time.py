"""`llamaspec check --time` on the real pair: what it reports, not how fast."""

import pytest

pytestmark = pytest.mark.model


def test_times_of_the_real_pair(llamaspec, pair) -> None:
    ran = llamaspec("check", pair.main, pair.draft, "--time", "--json", "-t", "2", "--device", "cpu")
    assert ran.code == 0, ran.err
    assert ran.json["compatible"] is True
    time = ran.json["time"]
    assert set(time["main_seconds"]) == {"1", "2", "4", "8"}
    assert time["chosen"]["threads"] == 2
    assert all(seconds > 0 for seconds in (*time["main_seconds"].values(), time["draft_step_seconds"]))
    assert time["ratio"] == time["draft_step_seconds"] / time["main_seconds"]["1"]
    verdict = time["break_even"]
    assert 1 <= verdict["length"] <= 7
    assert (verdict["acceptance"] is None) == (verdict["most"] < 1)
    smaller = time["smaller_draft"]
    assert smaller["type"] == "Q4_0"
    if "skipped" not in smaller:
        assert smaller["speedup"] > 0
        expected = f"llamaspec quantize {pair.draft} Q4_0" if smaller["speedup"] >= 1.25 else None
        assert smaller["command"] == expected
