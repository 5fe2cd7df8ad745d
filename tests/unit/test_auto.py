"""Mode `auto` round by round: what is chosen, cut and learnt. How well it does in all is in test_regret."""

import json
from random import Random

import pytest

from llamaspec.control.auto import AutoCourse, Knowledge
from llamaspec.control.course import Plan, Situation
from llamaspec.decode.ports import Draft, Evidence, Pace, Stop

MAIN = {1: 1.0, 2: 1.1, 4: 1.3, 8: 1.7, 16: 2.5, 33: 4.5}
STEP = 0.1


def known(step: float = STEP) -> Knowledge:
    knowledge = Knowledge()
    for width, seconds in MAIN.items():
        knowledge.prices.main.measure(width, 0, [seconds])
        knowledge.prices.draft.measure(width, 0, [step * (1.0 + 0.05 * (width - 1))])
        knowledge.prices.check.measure(width, 0, [step * (1.0 + 0.1 * (width - 1))])
    return knowledge


def situation(limit: int = 16, *, beside: int = 0, remaining: int = 400, unread: int = 1) -> Situation:
    return Situation(limit, 100, remaining, beside, beside, unread={"model": unread})


def drafted(source: str, *guesses: float) -> Draft:
    draft = Draft()
    for place, guess in enumerate(guesses):
        draft.add(place, None, Evidence(source, guess, round(10 * guess)))
    return draft


def pace_of(plan: Plan | None) -> Pace:
    assert plan is not None
    assert plan.pace is not None
    return plan.pace


def test_without_prices_nothing_is_drafted() -> None:
    course = AutoCourse(Knowledge(), ["ngram"], ["model"])
    assert course.choose(situation(), {"ngram": drafted("ngram", 0.99, 0.99)}) is None
    course.cut(draft := drafted("ngram", 0.1))
    assert draft.width == 1
    course.learn(Draft(), [7], 0.0)


def test_a_good_offer_is_taken_and_cut_where_it_gets_poor() -> None:
    course = AutoCourse(known(), ["ngram"], [])
    offer = drafted("ngram", 0.95, 0.95, 0.95, 0.05, 0.05)
    plan = course.choose(situation(), {"ngram": offer})
    assert plan == Plan("ngram", draft=offer)
    course.cut(offer)
    assert (offer.width, offer.stopped) == (3, Stop.GAIN)


def test_a_poor_offer_is_left() -> None:
    course = AutoCourse(known(), ["ngram"], [])
    assert course.choose(situation(), {"ngram": drafted("ngram", 0.03, 0.9)}) is None
    assert course.choose(situation(), {"ngram": Draft()}) is None


def test_of_two_offers_the_better_one_is_taken() -> None:
    course = AutoCourse(known(), ["ngram", "corpus"], [])
    offers = {"ngram": drafted("ngram", 0.5, 0.5), "corpus": drafted("corpus", 0.9, 0.9)}
    plan = course.choose(situation(), offers)
    assert plan is not None
    assert plan.drafter == "corpus"


def test_offers_that_are_not_used_are_learnt_from() -> None:
    knowledge = known()
    course = AutoCourse(knowledge, ["ngram"], [])
    evidence = Evidence("ngram", 0.5, 5)
    for _ in range(40):
        offer = drafted("ngram", 0.5)
        course.choose(situation(limit=1), {"ngram": offer})
        course.learn(Draft(), [99], 0.0)
    assert knowledge.acceptance.rate(evidence) < 0.15
    assert course.choose(situation(limit=1), {"ngram": drafted("ngram", 0.5)}) is None


def test_tokens_behind_the_first_that_was_refused_teach_nothing() -> None:
    knowledge = known()
    course = AutoCourse(knowledge, ["ngram"], [])
    offer = drafted("ngram", 0.9, 0.6, 0.3)
    course.choose(situation(), {"ngram": offer})
    course.learn(offer, [0, 99], 0.0)
    counted = knowledge.acceptance.as_dict()["kept"]
    assert counted == {"ngram:9": [1.0, 1.0], "ngram:6": [0.0, 1.0]}


def test_a_draft_goes_on_while_it_is_sure() -> None:
    course = AutoCourse(known(), [], ["model"], Random(1))
    pace = pace_of(course.choose(situation(), {}))
    draft = Draft()
    for place in range(16):
        draft.add(place, None, Evidence("model", 0.99, 15))
        if not pace.goes_on(draft):
            break
    assert draft.width > 6
    sure = draft.width
    draft.add(sure, None, Evidence("model", 0.02, 0))
    assert not pace.goes_on(draft)
    course.cut(draft)
    assert draft.width == sure


def test_a_draft_ends_at_the_limit() -> None:
    course = AutoCourse(known(), [], ["model"], Random(1))
    pace = pace_of(course.choose(situation(limit=2), {}))
    draft = drafted("model", 0.99)
    assert pace.goes_on(draft)
    draft.add(1, None, Evidence("model", 0.99, 15))
    assert not pace.goes_on(draft)


def test_many_sequences_beside_leave_less_room() -> None:
    course = AutoCourse(known(), ["ngram"], ["model"], Random(1))
    offer = drafted("ngram", *[0.999] * 40)
    course.choose(situation(limit=40, beside=40), {"ngram": offer})
    course.cut(offer)
    assert offer.width <= 24
    course.learn(offer, list(range(offer.width + 1)), 0.0)
    assert AutoCourse(known(), [], ["model"]).choose(situation(limit=4, beside=64), {}) is None


def test_a_model_that_can_never_pay_is_not_asked() -> None:
    course = AutoCourse(known(step=1.2), [], ["model"], Random(1))
    for _ in range(50):
        assert course.choose(situation(), {}) is None
        course.learn(Draft(), [99], 0.0)


def test_a_model_that_fails_is_left_and_its_cost_bounded() -> None:
    knowledge = known(step=0.3)
    course = AutoCourse(knowledge, [], ["model"], Random(1))
    lost = [0.0, 0.0]  # plain rounds' time, in either half
    for turn in range(400):
        draft = Draft()
        if course.choose(situation(), {}) is not None:
            draft = drafted("model", 0.4)
            course.cut(draft)
            lost[turn // 200] += 0.3 + (MAIN[2] - MAIN[1]) * draft.width
        course.learn(draft, [99], 0.3 * len(draft.tokens))
    assert 0.0 < lost[0] < 10.0
    assert lost[1] < 4.0
    assert 0.0 <= knowledge.budget <= 3.0


def test_a_round_of_reading_is_no_experience() -> None:
    knowledge = known()
    course = AutoCourse(knowledge, [], ["model"], Random(1))
    before = course.choose(situation(unread=300), {})
    assert before is not None
    course.learn(Draft(stopped=Stop.READING), [99], 5.0)
    assert knowledge.work == {}
    assert knowledge.acceptance.as_dict()["typical"] == {}
    assert course.choose(situation(unread=100), {}) is not None


def test_what_drafting_really_takes_is_learnt() -> None:
    knowledge = known()
    course = AutoCourse(knowledge, [], ["model"], Random(1))
    for _ in range(60):
        assert course.choose(situation(), {}) is not None
        draft = drafted("model", *[0.99] * 4)
        course.cut(draft)
        course.learn(draft, [*range(draft.width), 99], 4 * 1.5 * STEP)
    assert knowledge.work["model"] == pytest.approx(1.5, rel=0.1)


def test_as_many_guesses_are_evaluated_ahead_as_pay() -> None:
    course = AutoCourse(known(), [], ["cascade"], Random(1))
    pace = pace_of(course.choose(situation(), {}))
    assert pace.ahead([Evidence("ngram", 0.98, 9)] * 6) == 6
    assert pace.ahead([Evidence("ngram", 0.04, 0)] * 6) == 0
    assert pace.ahead([]) == 0


def test_hopeless_tokens_are_not_offered() -> None:
    pace = AutoCourse(known(), ["ngram"], []).pace
    assert pace.admits(Evidence("ngram", 0.2, 2))
    assert not pace.admits(Evidence("ngram", 0.01, 0))
    assert pace.refusal is Stop.GAIN


def experienced() -> Knowledge:
    knowledge = known()
    course = AutoCourse(knowledge, ["ngram"], ["model"], Random(1))
    for _ in range(30):
        plan = course.choose(situation(), {"ngram": drafted("ngram", 0.3)})
        draft = drafted("model", 0.9, 0.9) if plan is not None and plan.pace else Draft()
        course.cut(draft)
        course.learn(draft, [*range(draft.width), 99], 0.1 * len(draft.tokens))
    return knowledge


def test_knowledge_survives_a_restart() -> None:
    knowledge, restored = experienced(), Knowledge()
    restored.restore(json.loads(json.dumps(knowledge.as_dict())))
    assert restored.as_dict() == knowledge.as_dict()


def test_knowledge_without_prices_is_restored_too() -> None:
    knowledge, restored = experienced(), Knowledge()
    restored.restore(knowledge.as_dict() | {"prices": {}})
    assert not restored.prices.main.known
    assert restored.rate == knowledge.rate


@pytest.mark.parametrize(
    "changed",
    [
        {"rate": 0.5},
        {"rate": float("nan")},
        {"rate": "2"},
        {"budget": -1.0},
        {"budget": 1e9},
        {"work": {"model": 0.0}},
        {"work": {"model": None}},
        {"work": []},
        {"prices": None},
        {"prices": {"main": {"0": {"1": [-1.0, 1.0]}}}},
        {"acceptance": {}},
    ],
)
def test_junk_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        Knowledge().restore(experienced().as_dict() | changed)
