"""The engine on a fake model: with any drafter the greedy text is the plain text."""

from itertools import cycle, islice

import pytest

from fake.backend import Alternating, FakeBackend, FakeVocabulary, ScriptedDrafter
from fake.running import FIXED, GREEDY, PLAIN, PROMPT, RARE_END, Outcome, drafters, follows, plain, run
from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.sequence import Request
from llamaspec.events import FinishReason
from llamaspec.settings import SamplingSettings, SpeculationSettings
from llamaspec.stats import Stats


@pytest.mark.parametrize("name", drafters())
@pytest.mark.parametrize(
    "speculation",
    [
        SpeculationSettings(draft_max=1, p_min=0.0),
        SpeculationSettings(draft_max=8, p_min=0.0),
        SpeculationSettings(draft_max=8, draft_min=3, p_min=0.5),
        SpeculationSettings(draft_max=31, p_min=0.3),
    ],
    ids=["1", "8", "3-8", "31"],
)
@pytest.mark.parametrize("rollback", ["any", "start", "none"])
def test_greedy_text_is_the_plain_text(name: str, speculation: SpeculationSettings, rollback: str) -> None:
    expected = plain()
    assert len(expected.tokens) > 20
    main = FakeBackend(bias=RARE_END, rollback=rollback)
    assert run(Request(PROMPT, GREEDY, speculation), drafters()[name](), main) == expected


def test_right_drafts_save_decodes_and_wrong_ones_cost_none() -> None:
    def decodes(name: str) -> int:
        main = FakeBackend(bias=RARE_END)
        run(Request(PROMPT, GREEDY, SpeculationSettings(draft_max=8, p_min=0.0)), drafters()[name](), main)
        return main.decodes

    assert decodes("wrong") == decodes("none") == 40
    assert decodes("same model") == decodes("right") < 8


def test_speculation_switched_off_asks_no_drafter() -> None:
    drafter = ScriptedDrafter(lambda tokens: pytest.fail("asked"))
    assert run(Request(PROMPT, GREEDY, PLAIN), drafter) == plain()


@pytest.mark.parametrize("seed", range(12))
def test_an_end_of_generation_stops_wherever_it_comes(seed: int) -> None:
    sampling = GREEDY.model_copy(update={"n_predict": 200})
    expected = plain(sampling, seed=seed, bias=None)
    drafter = ModelDrafter(FakeBackend(seed=seed), 12)
    got = run(Request(PROMPT, sampling, FIXED), drafter, FakeBackend(seed=seed))
    assert got == expected
    assert got.reason is FinishReason.STOP
    assert 0 not in got.tokens


@pytest.mark.parametrize("budget", range(12))
@pytest.mark.parametrize("draft_max", [1, 3, 8])
def test_the_budget_ends_at_every_place_of_a_draft(budget: int, draft_max: int) -> None:
    sampling = GREEDY.model_copy(update={"n_predict": budget})
    stats = Stats()
    speculation = SpeculationSettings(draft_max=draft_max, p_min=0.0)
    got = run(Request(PROMPT, sampling, speculation), drafters()["right"](), stats=stats)
    assert got.tokens == plain().tokens[:budget]
    assert got.reason is FinishReason.LENGTH
    assert stats.predicted_tokens == budget
    assert len(stats.latencies) == max(0, budget - 1)


@pytest.mark.parametrize("room", range(1, 12))
@pytest.mark.parametrize("rollback", ["any", "start", "none"])
def test_a_full_context_ends_at_every_place_of_a_draft(room: int, rollback: str) -> None:
    main = FakeBackend(bias=RARE_END, context_size=len(PROMPT) + room, rollback=rollback)
    drafter = follows([*PROMPT, *plain().tokens], lambda place: place % 4 == 3)
    got = run(Request(PROMPT, GREEDY, SpeculationSettings(draft_max=8)), drafter, main)
    assert got.tokens == plain().tokens[:room]
    assert got.reason is FinishReason.LENGTH


@pytest.mark.parametrize("place", range(14))
@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_stop_string_ends_at_every_place_of_a_draft(place: int, width: int) -> None:
    text = plain().text
    stop = text[place : place + width]
    sampling = GREEDY.model_copy(update={"stop": (stop, "never seen")})
    for name in ("right", "every third wrong", "near model"):
        got = run(Request(PROMPT, sampling, FIXED), drafters()[name]())
        assert got == plain(sampling)
        assert got.text == text[: text.index(stop)]
        assert got.reason is FinishReason.STOP


def test_a_beginning_of_a_stop_string_is_shown_in_the_end() -> None:
    expected = plain()
    sampling = GREEDY.model_copy(update={"stop": (expected.text[-2:] + "no more of it",)})
    assert run(Request(PROMPT, sampling, FIXED), drafters()["right"]()) == expected


def test_characters_that_span_tokens_come_out_whole() -> None:
    pieces = [b"<eos>", b"a", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"b", b"\xff", b"c", b"", b"d", b"ee"]
    vocabulary = FakeVocabulary(pieces=pieces)
    expected = run(Request(PROMPT, GREEDY, PLAIN), vocabulary=vocabulary)
    whole = b"".join(pieces[token] for token in expected.tokens).decode("utf-8", "replace")
    assert expected.text == whole
    got = run(Request(PROMPT, GREEDY, FIXED), drafters()["every third wrong"](), vocabulary=vocabulary)
    assert got == expected


@pytest.mark.parametrize("seed", range(6))
def test_one_seed_gives_one_text(seed: int) -> None:
    sampling = SamplingSettings(temperature=1.0, seed=seed, n_predict=30)

    def once() -> Outcome:
        drafter = ModelDrafter(FakeBackend(bias=RARE_END, noise=0.5), 12)
        return run(Request(PROMPT, sampling, SpeculationSettings(p_min=0.3, draft_min=2)), drafter)

    assert once() == once()


def test_other_seeds_give_other_texts_and_no_seed_gives_a_new_one() -> None:
    texts = {
        plain(SamplingSettings(temperature=1.5, seed=seed, n_predict=30)).text for seed in (1, 2, 3, -1, -1)
    }
    assert len(texts) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"repeat_penalty": 1.5},
        {"frequency_penalty": 0.7, "repeat_last_n": -1},
        {"presence_penalty": 1.2, "repeat_last_n": 3},
        {"ignore_eos": True},
        {"ignore_eos": True, "repeat_penalty": 0.8},
    ],
)
@pytest.mark.parametrize("name", ["near model", "random", "ends", "smaller vocabulary", "larger vocabulary"])
def test_penalties_and_bans_act_the_same_inside_drafts(changes: dict[str, object], name: str) -> None:
    sampling = GREEDY.model_copy(update=changes)
    expected = plain(sampling)
    assert run(Request(PROMPT, sampling, FIXED), drafters()[name]()) == expected
    if "ignore_eos" in changes:
        assert expected.reason is FinishReason.LENGTH


@pytest.mark.parametrize("name", ["near model", "right", "random", "ends later"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_holds_inside_drafts(name: str, temperature: float) -> None:
    sampling = GREEDY.model_copy(update={"temperature": temperature, "seed": 5})
    got = run(Request(PROMPT, sampling, FIXED, grammar=Alternating()), drafters()[name]())
    assert [token % 2 for token in got.tokens] == list(islice(cycle([1, 0]), len(got.tokens)))
    if temperature == 0.0:
        assert got == run(Request(PROMPT, sampling, PLAIN, Alternating()))


def test_drafts_that_the_grammar_forbids_never_reach_the_main_model() -> None:
    main = FakeBackend(bias=RARE_END)
    drafter = ScriptedDrafter(lambda tokens: [6, 8, 10, 2])
    run(Request(PROMPT, GREEDY, FIXED, grammar=Alternating()), drafter, main)
    assert main.widest <= max(len(PROMPT), 2)


def test_statistics_count_what_happened() -> None:
    stats = Stats()
    text = [*PROMPT, *plain().tokens]
    drafter = follows(text, lambda place: place % 7 == 0)
    got = run(Request(PROMPT, GREEDY, SpeculationSettings(draft_max=4, p_min=0.0)), drafter, stats=stats)
    assert stats.prompt_tokens == len(PROMPT)
    assert stats.predicted_tokens == len(got.tokens) == len(stats.latencies) + 1 == 40
    assert stats.draft_n_accepted == got.drafted
    # The first token comes with the prompt; each round brings what was accepted and one more.
    assert stats.predicted_tokens == 1 + stats.draft_n_accepted + stats.rounds
    assert stats.draft_n == sum(stats.drafted_at) > stats.draft_n_accepted > 0
    assert stats.drafted_at[0] <= stats.rounds
    assert stats.time_to_first_token is not None


@pytest.mark.parametrize("place", range(1, 10))
def test_no_more_is_accepted_than_is_shown(place: int) -> None:
    stats = Stats()
    stop = plain().text[place : place + 2]
    sampling = GREEDY.model_copy(update={"stop": (stop,)})
    run(Request(PROMPT, sampling, SpeculationSettings(draft_max=8)), drafters()["right"](), stats=stats)
    assert stats.draft_n_accepted <= stats.predicted_tokens
