"""The policy of mode `auto` in the simulated world, against an oracle that knows the laws of that world.

Run with -s to see all figures.
"""

import json
from collections.abc import Callable
from random import Random
from statistics import mean

import pytest
from oracle import follow_oracle
from simulation import (
    CHAT,
    CODE,
    EDIT,
    JSON,
    KINDS,
    LIMIT,
    MACHINES,
    STORY,
    Kind,
    Machine,
    Schedule,
    Text,
    calibrated,
    follow_course,
    steady,
    switching,
    walking,
)

from llamaspec.control.auto import Knowledge

FIRST, ROUNDS, SEEDS = 200, 450, 7
ENDLESS = 100_000
PATTERNS: dict[str, Callable[[int], Callable[[Random], Schedule]]] = {
    "steady": lambda seed: steady(KINDS[seed % len(KINDS)]),
    "switching": lambda seed: switching,
    "walking": lambda seed: walking(CODE),
}
DRAFTERS = (("model",), ("ngram",), ("model", "ngram"))

# A draft model that was left behind has to read the text before it can be tried again. Where that costs as
# much as it may earn, who is not told that the text has changed can't find out at a price that pays.
BLIND = {("B", "switching", "model"), ("B", "walking", "model+ngram")}


def remembering(knowledge: Knowledge, machine: Machine, seed: int) -> Knowledge:
    """What is left of knowledge after a restart, with prices measured anew."""
    restored = calibrated(Knowledge(), machine, seed)
    restored.restore(json.loads(json.dumps(knowledge.as_dict() | {"prices": {}})))
    return restored


@pytest.mark.slow
@pytest.mark.parametrize("drafters", DRAFTERS, ids="+".join)
@pytest.mark.parametrize("name", MACHINES)
def test_regret(name: str, drafters: tuple[str, ...]) -> None:
    machine, means = MACHINES[name], []
    for pattern, schedule in PATTERNS.items():
        after, whole, later, speeds, plain, spent = [], [], [], [], 0.0, 0.0
        for seed in range(SEEDS):
            knowledge = calibrated(Knowledge(), machine, seed)
            text = Text(schedule(seed), ENDLESS, 100 + seed)
            run = follow_course(text, machine, drafters, knowledge, rounds=ROUNDS, seed=seed)
            middle, end = run.ends[FIRST - 1], run.ends[-1]
            best = follow_oracle(text, machine, drafters, end)
            after.append(1.0 - best.between(middle, end) / run.between(middle, end))
            whole.append(1.0 - best.between(0, end) / run.between(0, end))
            plain, spent = plain + end * machine.main[1], spent + run.seconds[-1]
            speeds.append(end * machine.main[1] / run.seconds[-1])

            text = Text(schedule(seed + 1), ENDLESS, 500 + seed)
            knowledge = remembering(knowledge, machine, seed)
            run = follow_course(text, machine, drafters, knowledge, rounds=150, seed=seed)
            end = run.ends[-1]
            later.append(1.0 - follow_oracle(text, machine, drafters, end).between(0, end) / run.seconds[-1])
        case = (name, pattern, "+".join(drafters))
        print(
            f"\n{' '.join(case):30} regret after {FIRST} rounds {mean(after):6.1%}, "
            f"in all {mean(whole):6.1%}, remembering {mean(later):6.1%}; times plain {mean(speeds):.2f}",
            end="",
        )
        means.append(mean(after))
        assert mean(after) < (0.08 if case in BLIND else 0.03), case
        assert spent <= 1.02 * plain, case
    assert mean(means) < 0.03


def test_a_model_that_can_not_pay_costs_nothing() -> None:
    machine, sure = MACHINES["C"], Kind("sure", (0, 0, 0, 0, 0, 1.0, 0), 0.0, (0.5,) * 6)
    text = Text(steady(sure), 400, 1)
    run = follow_course(text, machine, ["model"], calibrated(Knowledge(), machine))
    assert not run.asked
    assert run.seconds[-1] <= 1.01 * run.ends[-1] * machine.main[1]


@pytest.mark.parametrize("name", MACHINES)
def test_matches_that_are_always_wrong_cost_nothing(name: str) -> None:
    machine, wrong = MACHINES[name], Kind("wrong", EDIT.levels, 1.0, (0.001,) * 6)
    text = Text(steady(wrong), 600, 1)
    run = follow_course(text, machine, ["ngram"], calibrated(Knowledge(), machine))
    assert run.seconds[-1] <= 1.01 * run.ends[-1] * machine.main[1]


@pytest.mark.parametrize("kind", [STORY, CHAT])
def test_a_model_that_loses_costs_little(kind: Kind) -> None:
    machine, knowledge, plain, spent = MACHINES["B"], calibrated(Knowledge(), MACHINES["B"]), 0.0, 0.0
    for seed in range(12):
        run = follow_course(Text(steady(kind), 200, seed), machine, ["model"], knowledge, seed=seed)
        plain, spent = plain + run.ends[-1] * machine.main[1], spent + run.seconds[-1]
    assert spent <= 1.02 * plain


def test_a_prompt_is_read_where_that_pays() -> None:
    machine = MACHINES["A"]
    run = follow_course(
        Text(steady(CODE), 200, 1), machine, ["model"], calibrated(Knowledge(), machine), prompt=500
    )
    assert run.seconds[-1] < 0.7 * run.ends[-1] * machine.main[1]


def test_a_prompt_is_not_read_for_a_short_answer() -> None:
    machine = MACHINES["A"]
    run = follow_course(
        Text(steady(CODE), 20, 1), machine, ["model"], calibrated(Knowledge(), machine), prompt=2000
    )
    assert not run.asked


def test_of_two_models_the_faster_one_is_used() -> None:
    machine = MACHINES["A"]
    text = Text(steady(JSON), 1500, 1)
    knowledge = calibrated(Knowledge(), machine)
    run = follow_course(text, machine, ["slow", "fast"], knowledge, slowness={"slow": 3.0})
    alone = follow_course(text, machine, ["fast"], calibrated(Knowledge(), machine))
    assert run.asked["fast"] > 10 * run.asked["slow"]
    assert run.seconds[-1] < 1.05 * alone.seconds[-1]


def test_nobody_beats_the_oracle_by_a_fixed_rule() -> None:
    """Blind drafts of any one length, of either kind, are slower than what the oracle does."""
    machine, text = MACHINES["A"], Text(steady(CODE), ENDLESS, 3)
    end = 1500
    text.reach(end + 2 * LIMIT)
    best = follow_oracle(text, machine, ("model", "ngram"), end).between(0, end)
    for hits in (text.kept, text.right):
        for width in range(LIMIT + 1):
            position, seconds = 0, 0.0
            while position < end:
                accepted = 0
                while accepted < width and hits[position + accepted]:
                    accepted += 1
                position += accepted + 1
                seconds += machine.main[width + 1] + (width * machine.draft[1] if hits is text.kept else 0.0)
            assert best < seconds, width
