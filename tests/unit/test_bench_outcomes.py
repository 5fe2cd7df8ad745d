"""From trials to what settings came to, and reports held against each other."""

from collections.abc import Mapping

import pytest
from reports import noisy_report, report

from llamaspec.bench.compare import best_fixed, caveats, change, comparison, side_by_side
from llamaspec.bench.outcomes import About, Tried, differing, joules_by_prompt, outcome
from llamaspec.bench.paired import Run, Trial
from llamaspec.bench.report import Difference, RunRecord
from llamaspec.console.bench import print_report, trial_line
from llamaspec.errors import UsageError
from llamaspec.events import FinishReason


def a_run(
    speed: float, width: int = 0, tokens: tuple[int, ...] = (1, 2, 3), joules: float | None = None
) -> Run:
    """Ten tokens behind the first; with a `width` in drafts of that, of which all but the last are kept."""
    rounds = 10 // max(1, width)
    return Run(
        predicted=11,
        timed_tokens=10,
        seconds=10 / speed,
        prompt_tokens=5,
        prompt_seconds=0.5,
        rounds=rounds,
        drafted=width * rounds,
        accepted=max(0, width - 1) * rounds,
        finish=FinishReason.LENGTH,
        tokens=tokens,
        times=tuple(place / speed for place in range(11)),
        widths={width: rounds},
        drafted_at=(rounds,) * width,
        accepted_at=(rounds,) * max(0, width - 1),
        joules=joules,
    )


def tried(
    prompt: str, kind: str, runs: Mapping[str, Run], peers: Mapping[str, RunRecord] | None = None
) -> Tried:
    return Tried(Trial(prompt, kind, runs), 0.01, peers or {})


def test_an_outcome_weighs_prompts_alike_and_tells_kinds_apart() -> None:
    trials = [
        tried("a", "code", {"plain": a_run(10.0), "x": a_run(20.0, width=5)}),
        tried("a", "code", {"plain": a_run(10.0), "x": a_run(20.0, width=5)}),
        tried("b", "chat", {"plain": a_run(10.0), "x": a_run(5.0, width=5)}),
    ]
    found = outcome("x", "plain", trials, About(memory=77, chosen={"profile": "p"}))
    assert found.speed is not None and found.relative is not None
    assert found.speed.value == pytest.approx(12.5)
    assert found.relative.value == pytest.approx(1.0)
    assert found.relative_by_kind["code"].value == pytest.approx(2.0)
    assert found.speed_by_kind["chat"].value == pytest.approx(5.0)
    assert found.worst == ("b", pytest.approx(0.5))
    assert found.time_to_first_token.value == pytest.approx(0.5)
    assert found.latency.p50 == pytest.approx(0.05)
    assert (found.peak_memory, found.same_text, found.joules_per_token) == (77, 2, None)


def test_drafts_are_summed_up_by_position_and_length() -> None:
    runs = {"plain": a_run(10.0), "x": a_run(20.0, width=3)}
    found = outcome("x", "plain", [tried("a", "code", runs)] * 2, About())
    assert found.acceptance_rate == pytest.approx(2 / 3)
    assert found.drafted_at == (6, 6, 6)
    assert found.accepted_at == (6, 6)
    assert found.accepted_lengths == {2: 6}
    assert found.widths == {3: 6}
    plain = outcome("plain", "plain", [tried("a", "code", runs)], About())
    assert (plain.relative, plain.worst, plain.acceptance_rate, plain.same_text) == (None, None, None, 0)
    assert plain.accepted_lengths == {0: 10}


def test_answers_that_ended_at_once_have_no_speed() -> None:
    ended = Run(1, 0, 0.0, 5, 0.5, 0, 0, 0, FinishReason.STOP, ())
    trials = [tried("a", "code", {"plain": ended, "x": ended})]
    found = outcome("x", "plain", trials, About())
    assert (found.speed, found.relative, found.latency, found.worst) == (None, None, None, None)
    assert found.time_to_first_token is not None


def test_a_peer_is_an_outcome_too() -> None:
    answer = RunRecord(
        predicted=11,
        timed_tokens=10,
        seconds=0.5,
        prompt_tokens=5,
        prompt_seconds=0.1,
        drafted=None,
        accepted=None,
    )
    trials = [tried("a", "code", {"plain": a_run(10.0)}, {"llama-server": answer})]
    found = outcome("llama-server", "plain", trials, About(program="llama-server"))
    assert found.relative.value == pytest.approx(2.0)
    assert (found.acceptance_rate, found.same_text, found.drafted_at) == (None, 0, ())


def test_texts_that_part_are_found_once_for_each_prompt() -> None:
    same, other = a_run(1.0), a_run(1.0, tokens=(1, 9))
    trials = [
        Trial("a", "k", {"plain": same, "x": same}),
        Trial("a", "k", {"plain": same, "x": other}),
        Trial("a", "k", {"plain": same, "x": other}),
    ]
    assert differing(trials, "x", "plain") == {"a": trials[1]}
    about = About(differences=(Difference(prompt="a", position=1),))
    assert outcome("x", "plain", [Tried(trial, 0.0) for trial in trials], about).same_text == 0


def test_joules_are_those_of_each_token() -> None:
    trials = [Trial("a", "k", {"x": a_run(1.0, joules=30.0)}), Trial("b", "k", {"x": a_run(1.0)})]
    assert joules_by_prompt(trials, "x") == {"a": [3.0]}


def test_two_reports_are_compared_by_prompt() -> None:
    before = report()
    slower = [
        trial.model_copy(
            update={
                "runs": {
                    name: run.model_copy(update={"seconds": run.seconds * 2})
                    for name, run in trial.runs.items()
                }
            }
        )
        for trial in before.trials
    ]
    after = report(trials=tuple(slower))
    found = change(before, after, "auto")
    assert found is not None
    assert (found.value, found.verdict) == (pytest.approx(0.5), "slower")
    table = comparison(before, after)
    assert [row[0] for row in table.rows] == [outcome.setting for outcome in before.outcomes]
    assert set(table.notes.values()) == {"slower"}
    assert change(before, before, "auto").verdict == "within noise"
    noisy = after.model_copy(update={"conclusive": False})
    assert set(comparison(before, noisy).notes.values()) == {"too noisy"}


def test_what_weakens_a_comparison_is_said() -> None:
    before = report()
    assert len(list(caveats(before, before))) == 1
    machine = before.machine.model_copy(update={"cores": 8})
    told = " ".join(caveats(before, noisy_report().model_copy(update={"machine": machine, "draft": None})))
    assert "The machines differ: cores 2 and 8." in told
    assert "The draft models differ" in told
    assert "B is too noisy" in told


def test_reports_with_nothing_in_common_are_refused() -> None:
    with pytest.raises(UsageError, match="no setting with a prompt"):
        comparison(report(), report(trials=()))


def test_the_best_of_the_others_is_what_auto_is_held_against() -> None:
    sentence = best_fixed(report(), "auto")
    assert sentence is not None and sentence.startswith("auto is ") and "fixed:16:0.75" in sentence
    assert "too noisy" in str(best_fixed(noisy_report(), "auto"))
    assert best_fixed(report(), "nobody") is None


def test_several_profiles_stand_side_by_side() -> None:
    table = side_by_side([("one", report()), ("two", report())])
    assert [row[0] for row in table.rows] == ["one"] * 4 + ["two"] * 4


def test_a_noisy_report_claims_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(report())
    assert "faster" in capsys.readouterr().out
    print_report(noisy_report())
    shown = capsys.readouterr().out
    assert "too noisy" in shown and "faster" not in shown
    assert "--repeat 5" in shown


def test_a_trial_is_told_in_a_line() -> None:
    runs = {"plain": a_run(10.0), "auto": a_run(15.0)}
    line = trial_line(tried("a", "code", runs).record(), "plain")
    assert "plain 10.00 tokens/s" in line and "auto 1.50×" in line and "others" not in line
    busy = tried("a", "code", runs).record().model_copy(update={"others_share": 0.4})
    assert "others used 40% of the machine" in trial_line(busy, "plain")
