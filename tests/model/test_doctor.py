"""`llamaspec doctor` where the default pair is: what it reports, not how fast."""

import re

import pytest

pytestmark = pytest.mark.model


def test_the_pair_is_whole_and_its_speed_is_measured(llamaspec, pair) -> None:
    ran = llamaspec("doctor", "pair", "speed", "--json")
    assert ran.code == 0, ran.out
    whole, speed = ran.json["checks"]
    assert (whole["state"], whole["findings"][0]["sentence"]) == (
        "ok",
        "qwen2.5-coder-1.5b is here, and its bytes are the promised ones.",
    )
    [measured] = speed["findings"]
    assert speed["state"] != "broken"
    assert re.match(rf"[\d.]+ tokens/s with {re.escape(pair.draft.name)}: \d+%", measured["sentence"])
