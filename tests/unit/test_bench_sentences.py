"""What a report says of itself: never more than its figures do."""

import shlex
from typing import Any

import pytest
from reports import report

from llamaspec.bench import sentences
from llamaspec.bench.report import Outcome, Report, Roofline
from llamaspec.figures import Figure, Ratio
from llamaspec.provenance import WorkRecord


def with_ratio(ratio: Ratio | None, **changes: Any) -> Report:
    plain = Outcome(setting="plain", speed=Figure(value=9.79, spread=0.22, count=4))
    return report(outcomes=(plain, Outcome(setting="auto", relative=ratio, same_text=16)), **changes)


@pytest.mark.parametrize(
    "ratio, said",
    [
        (
            Ratio(value=1.49, low=1.41, high=1.57, count=8),
            "auto is 1.49× as fast as plain here (1.41 to 1.57), text unchanged",
        ),
        (
            Ratio(value=0.8, low=0.7, high=0.9, count=8),
            "auto is 0.80× as fast as plain here (0.70 to 0.90), text unchanged",
        ),
        (
            Ratio(value=1.02, low=0.95, high=1.09, count=8),
            "No difference between auto and plain shows here: 1.02× (0.95 to 1.09)",
        ),
        (
            Ratio(value=1.49, low=0.0, high=4.8e8, count=1),
            "auto was 1.49× as fast as plain in 1 run: too few to conclude from",
        ),
        (None, "plain writes 9.79 ± 0.22 tokens per second here"),
    ],
)
def test_the_headline_says_what_is_shown(ratio: Ratio | None, said: str) -> None:
    assert sentences.headline(with_ratio(ratio)) == said


def test_the_headline_is_about_auto_and_else_about_the_fastest_of_our_own() -> None:
    whole = report()
    assert sentences.key_setting(whole) == "auto"
    others = tuple(outcome for outcome in whole.outcomes if outcome.setting != "auto")
    assert sentences.key_setting(whole.model_copy(update={"outcomes": others})) == "fixed:16:0.75"


def test_a_text_that_nobody_compared_is_not_called_unchanged() -> None:
    assert sentences.text_kept(report().outcome("llama-server")) == ""
    assert sentences.text_kept(report().outcome("fixed:16:0.75")) == "text unchanged"
    assert sentences.text_kept(report().outcome("auto")) == "same text for 15 of 16 prompts"


def test_an_interval_of_one_run_is_not_shown() -> None:
    assert sentences.relative(Ratio(value=1.2, low=0.0, high=4.8e8, count=1)) == "1.20×"
    assert sentences.relative(Ratio(value=1.2, low=1.1, high=1.3, count=3)) == "1.20× (1.10 to 1.30)"
    assert sentences.relative(None) == "–"


def test_the_roofline_explains_what_is_above_it() -> None:
    limit = {"bandwidth": 20e9, "bytes_per_token": 2_000_000_000, "limit": 10.0}
    below = sentences.roofline(Roofline(**limit, fractions={"plain": 0.8}))
    assert "reads 2.00 GB" in below and "20.0 GB/s" in below and "10.0 tokens per second" in below
    assert below.endswith("of which plain reaches 80 %.")
    above = sentences.roofline(Roofline(**limit, fractions={"plain": 0.8, "auto": 1.3}))
    assert above.endswith("auto reaches 130 % (more than 100 %, as one reading yields several tokens).")
    odd = sentences.roofline(Roofline(**limit, fractions={"plain": 1.1, "auto": 1.3}))
    assert "caches hold a part" in odd and "several tokens" not in odd


def test_the_command_names_what_was_measured() -> None:
    work = WorkRecord(name="my prompts", prompts=16, kinds=("code", "edit"), n_predict=96, repeat=2)
    words = shlex.split(sentences.command(report(work=work)))
    assert words[words.index("--workload") + 1] == "my prompts.yaml"
    assert words[words.index("--settings") + 1] == "plain,fixed:16:0.75,auto"
    assert [words[i + 1] for i, word in enumerate(words) if word == "--workload"][1:] == ["code", "edit"]
    assert "--workload" not in sentences.command(report())
    two = work.model_copy(update={"name": "mine + yours"})
    assert "--workload mine.yaml --workload yours.yaml" in sentences.command(report(work=two))


def test_the_method_says_how_peers_were_measured() -> None:
    assert "llama-server answers the same prompts in between" in sentences.method(report())
    alone = report(outcomes=(report().outcome("plain"), report().outcome("auto")))
    assert "in between" not in sentences.method(alone)


def test_a_headline_has_no_room_for_a_very_long_name() -> None:
    said = sentences.headline(report(baseline="x" * 500))
    assert "x" * 59 + "…" in said and len(said) < 160
