"""What becomes of draft tokens: counted for the pair, followed in the text."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaspec.control.acceptance import Acceptance, Mood, shifted
from llamaspec.decode.ports import Evidence

SURE, UNSURE = Evidence("model", 0.9, 9), Evidence("model", 0.4, 3)
MATCH = Evidence("ngram", 0.5, 2)


def test_a_source_is_believed_until_there_is_evidence() -> None:
    assert Acceptance().rate(SURE) == SURE.guess
    assert Mood(Acceptance()).rate(SURE) == SURE.guess


def test_counts_prevail_in_the_end() -> None:
    acceptance, random = Acceptance(), Random(1)
    for _ in range(2000):
        acceptance.learn(SURE, random.random() < 0.3)
    assert acceptance.rate(SURE) == pytest.approx(0.3, abs=0.06)
    assert acceptance.rate(UNSURE) == UNSURE.guess


def test_what_is_long_ago_fades() -> None:
    acceptance = Acceptance()
    for kept in (True, False):
        for _ in range(3000):
            acceptance.learn(SURE, kept)
    assert acceptance.rate(SURE) < 0.05


def test_a_text_shifts_all_buckets_of_a_source_and_no_other() -> None:
    mood = Mood(Acceptance())
    for _ in range(20):
        mood.learn(SURE, False)
    assert mood.rate(SURE) < 0.5
    assert mood.rate(UNSURE) < UNSURE.guess - 0.1
    assert mood.rate(MATCH) == MATCH.guess


def test_a_mood_follows_a_change() -> None:
    mood, random = Mood(Acceptance()), Random(2)
    for true in (0.9, 0.5, 0.9):
        for _ in range(150):
            mood.learn(UNSURE, random.random() < true)
        assert mood.rate(UNSURE) == pytest.approx(true, abs=0.2)


def test_a_new_text_starts_from_the_pair_alone() -> None:
    acceptance = Acceptance()
    old = Mood(acceptance)
    for _ in range(10):
        old.learn(SURE, False)
    assert old.rate(SURE) < Mood(acceptance).rate(SURE) == acceptance.rate(SURE) < SURE.guess


def test_how_good_a_drafter_is_on_the_whole() -> None:
    acceptance = Acceptance()
    before = acceptance.typical("model")
    for _ in range(200):
        acceptance.learn_typical("model", 0.4)
    assert 0.4 < acceptance.typical("model") < 0.45 < before == acceptance.typical("cascade")


@given(st.floats(0.0, 1.0), st.floats(-3.0, 3.0))
def test_a_shift_stays_a_probability_and_keeps_its_sign(rate: float, shift: float) -> None:
    moved = shifted(rate, shift)
    assert 0.0 < moved < 1.0
    inside = min(0.999, max(0.001, rate))
    assert (moved - inside) * shift >= -1e-12


def test_it_survives_a_restart() -> None:
    acceptance = Acceptance()
    for evidence, kept in ((SURE, True), (UNSURE, False), (MATCH, True)):
        acceptance.learn(evidence, kept)
    acceptance.learn_typical("model", 0.6)
    restored = Acceptance()
    restored.restore(json.loads(json.dumps(acceptance.as_dict())))
    assert restored.as_dict() == acceptance.as_dict()
    assert restored.rate(UNSURE) == acceptance.rate(UNSURE)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kept": {}},
        {"kept": {"model:1": [2.0, 1.0]}, "typical": {}},
        {"kept": {"model:1": [-1.0, 1.0]}, "typical": {}},
        {"kept": {"model:1": [float("nan"), 1.0]}, "typical": {}},
        {"kept": {"model:one": [1.0, 1.0]}, "typical": {}},
        {"kept": {"model:1": [1.0]}, "typical": {}},
        {"kept": {"model:1": ["1", "2"]}, "typical": {}},
        {"kept": {"model:1": [1.0, 1e9]}, "typical": {}},
        {"kept": {}, "typical": {"model": 0.5}},
        {"kept": [], "typical": {}},
        [],
    ],
)
def test_junk_is_refused(data: object) -> None:
    acceptance = Acceptance()
    acceptance.learn(SURE, True)
    before = acceptance.as_dict()
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        acceptance.restore(data)  # type: ignore[arg-type]
    assert acceptance.as_dict() == before
