"""Several requests on one KV cache: what they take over, how they share it, and what they tell of tokens."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from fake.backend import FakeBackend, FakeVocabulary
from fake.running import FIXED, GREEDY, PLAIN, PROMPT, RARE_END, CheckedEngine, Outcome, drafters, plain
from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.drafters.ngram import NgramDrafter
from llamaspec.decode.sequence import Request
from llamaspec.events import Event, PromptEvent, TextEvent, TokenDetail
from llamaspec.settings import SamplingSettings, SpeculationSettings
from llamaspec.stats import Stats

AUTO = SpeculationSettings()
LONG = tuple(1 + (7 * place) % 11 for place in range(100))


def events_of(engine: CheckedEngine, *requests: Request) -> list[list[Event]]:
    """All events of requests that are handed in together, by request."""
    ids = [engine.submit(request) for request in requests]
    events: list[Event] = []
    while engine.busy:
        events += engine.step()
    return [[event for event in events if event.request == each] for each in ids]


def engine_of(main: FakeBackend | None = None, slots: int = 2, spare: int = 0) -> CheckedEngine:
    draft = ModelDrafter(FakeBackend(noise=0.5, cells=4096), 12)
    main = main or FakeBackend(bias=RARE_END, cells=4096)
    return CheckedEngine(main, FakeVocabulary(), [draft, NgramDrafter()], slots=slots, spare=spare)


def cached(prompt: Sequence[int], speculation: SpeculationSettings = FIXED) -> Request:
    return Request(tuple(prompt), GREEDY, speculation, cache_prompt=True)


@pytest.mark.parametrize("speculation", [PLAIN, FIXED, AUTO])
def test_a_text_that_goes_on_is_not_read_again(speculation: SpeculationSettings) -> None:
    engine = engine_of()
    stats = Stats()
    [first] = events_of(engine, cached(PROMPT, speculation))
    longer = (*PROMPT, *Outcome.of(first).tokens, 2, 7)
    engine.submit(cached(longer, speculation), stats)
    events: list[Event] = []
    while engine.busy:
        events += engine.step()
    assert Outcome.of(events) == plain(prompt=longer)
    assert stats.cached_tokens >= len(longer) - 4


def test_what_another_slot_is_holding_is_copied() -> None:
    engine = engine_of(slots=3)
    outcomes = events_of(engine, *(cached((*LONG, last)) for last in (1, 2, 3)))
    assert [Outcome.of(events) for events in outcomes] == [plain(prompt=(*LONG, last)) for last in (1, 2, 3)]
    assert engine.decodes < 60  # the prompt was read once


def test_requests_that_do_not_want_it_take_nothing_over_and_leave_nothing() -> None:
    engine = engine_of()
    request = Request(PROMPT, GREEDY, FIXED)
    assert [Outcome.of(events) for events in events_of(engine, request, request)] == [plain(), plain()]
    assert engine.held == 0


@pytest.mark.parametrize("rollback", ["any", "none", "start"])
def test_more_texts_than_the_cache_holds_are_all_answered(rollback: str) -> None:
    main = FakeBackend(bias=RARE_END, rollback=rollback, context_size=64, cells=80)
    prompts = [(3, 1, 4, number) for number in range(5)]
    alone = [plain(prompt=prompt, rollback=rollback, context_size=64) for prompt in prompts]
    engine = engine_of(main, slots=4, spare=2)
    for _ in range(2):  # the second time there are kept texts in the way
        outcomes = events_of(engine, *(cached(prompt) for prompt in prompts))
        assert [Outcome.of(events) for events in outcomes] == alone


def test_a_prompt_that_has_no_room_waits_for_it() -> None:
    main = FakeBackend(bias=RARE_END, context_size=64, cells=64)
    engine = engine_of(main, slots=2)
    first, second = engine.submit(cached(range(1, 11))), engine.submit(cached([1] * 60))
    engine.step()
    assert [sequence.id for sequence in engine.running] == [first]
    while engine.busy:
        last = [event.request for event in engine.step()]
    assert last[-1] == second


def log_softmax(row: np.ndarray) -> np.ndarray:
    wide = row.astype(np.float64)
    return wide - wide.max() - math.log(np.exp(wide - wide.max()).sum())


def check_details(text: Sequence[int], details: Sequence[TokenDetail], main: FakeBackend, top: int) -> None:
    """Every detail says of its token, the next of the text behind the prompt, what the main model does."""
    known = list(text[: len(text) - len(details)])
    for detail, token in zip(details, text[len(known) :], strict=True):
        chances = log_softmax(main.logits(known))
        assert detail.token == token
        assert detail.logprob == pytest.approx(chances[token], abs=1e-5)
        best = np.argsort(-chances, kind="stable")[:top]
        assert [other for other, _ in detail.top] == best.tolist()
        assert [chance for _, chance in detail.top] == pytest.approx(chances[best].tolist(), abs=1e-5)
        known.append(token)


@pytest.mark.parametrize("name", ["right", "near model", "every third wrong"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_log_probabilities_are_those_of_the_row_that_a_token_was_judged_by(
    name: str, temperature: float
) -> None:
    main = FakeBackend(bias=RARE_END)
    engine = CheckedEngine(main, FakeVocabulary(), [drafters()[name]()])
    sampling = SamplingSettings(temperature=temperature, n_predict=30, seed=3, repeat_penalty=1.3)
    [events] = events_of(
        engine, Request(PROMPT, sampling, SpeculationSettings(draft_max=8, p_min=0.0), logprobs=3)
    )
    texts = [event for event in events if isinstance(event, TextEvent)]
    tokens = [token for event in texts for token in event.tokens]
    details = [detail for event in texts for detail in event.details]
    check_details([*PROMPT, *tokens], details, FakeBackend(bias=RARE_END), 3)
    assert any(detail.source for detail in details) == any(event.drafted for event in texts)
    assert [detail.round for detail in details] == sorted(detail.round for detail in details)
    assert details[0].round == 1


@pytest.mark.parametrize("batch_size", [3, 64])
@pytest.mark.parametrize("max_rows", [2, 32])
@pytest.mark.parametrize("n_predict", [0, 1, 5])
def test_prompts_are_told_of_before_any_text(batch_size: int, max_rows: int, n_predict: int) -> None:
    main = FakeBackend(bias=RARE_END, batch_size=batch_size, max_rows=max_rows)
    engine = CheckedEngine(main, FakeVocabulary(), slots=2)
    sampling = SamplingSettings(temperature=0.0, n_predict=n_predict)
    asked = Request(LONG[:20], sampling, PLAIN, prompt_logprobs=2, cache_prompt=True)
    for events in (*events_of(engine, asked, Request(PROMPT, sampling, PLAIN)), *events_of(engine, asked)):
        if events[0].request == 1:
            assert not any(isinstance(event, PromptEvent) for event in events)
            continue
        assert isinstance(events[0], PromptEvent)
        assert len(events[0].details) == 19
        check_details(LONG[:20], events[0].details, FakeBackend(bias=RARE_END), 2)
        assert not any(isinstance(event, PromptEvent) for event in events[1:])


def test_biases_ban_and_favour() -> None:
    free = plain().tokens
    banned = free[0]
    request = Request(PROMPT, GREEDY, FIXED, logit_bias={banned: -math.inf})
    [events] = events_of(engine_of(), request)
    assert banned not in Outcome.of(events).tokens
    [events] = events_of(engine_of(), Request(PROMPT, GREEDY, FIXED, logit_bias={7: 100.0}))
    assert set(Outcome.of(events).tokens) == {7}


def test_a_stop_string_is_named() -> None:
    text = plain().text
    sampling = GREEDY.model_copy(update={"stop": ("zzzz", text[3:5])})
    [events] = events_of(engine_of(), Request(PROMPT, sampling, FIXED))
    assert events[-1].stopped_by == text[3:5]
