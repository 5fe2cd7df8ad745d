"""Many requests at once, and every way that one ends: each gives what it gives alone, and ends once."""

from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import pytest

from fake.backend import Alternating, FakeBackend, FakeVocabulary
from fake.running import (
    FIXED,
    GREEDY,
    PROMPT,
    RARE_END,
    CheckedEngine,
    Outcome,
    drafters,
    follows,
    plain,
    run,
)
from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.ports import Row
from llamaspec.decode.sequence import Request
from llamaspec.engine.engine import Engine
from llamaspec.errors import (
    ClosedError,
    ContextError,
    DecodeAborted,
    DecodeError,
    GrammarError,
    LlamaspecError,
    UsageError,
)
from llamaspec.events import Event, FinishEvent, FinishReason
from llamaspec.settings import SpeculationSettings


def drain(engine: Engine) -> dict[int, Outcome]:
    events: dict[int, list[Event]] = {}
    while engine.busy:
        for event in engine.step():
            events.setdefault(event.request, []).append(event)
    return {request: Outcome.of(own) for request, own in events.items()}


PROMPTS = [(1, 2, 3), PROMPT, tuple(islice(cycle([7, 5, 9, 2, 11]), 40)), (6,), (8, 8, 8, 8, 8, 8, 8)]


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.parametrize("rollback", ["any", "start", "none"])
@pytest.mark.parametrize("sizes", [{}, {"batch_size": 10, "max_rows": 10}, {"batch_size": 5, "max_rows": 5}])
@pytest.mark.parametrize("name", ["near model", "random", "right"])
def test_many_at_once_give_what_each_gives_alone(
    slots: int, rollback: str, sizes: dict[str, int], name: str
) -> None:
    main = FakeBackend(bias=RARE_END, rollback=rollback, **sizes)
    draft = ModelDrafter(FakeBackend(bias=RARE_END, noise=0.5, rollback=rollback, **sizes), 12)
    drafter = draft if name == "near model" else drafters()[name]()
    engine = CheckedEngine(main, FakeVocabulary(), [drafter], slots=slots)
    speculation = SpeculationSettings(draft_max=8, p_min=0.2)
    requests = {engine.submit(Request(prompt, GREEDY, speculation)): prompt for prompt in PROMPTS}
    outcomes = drain(engine)
    assert {request: outcomes[request] for request in requests} == {
        request: plain(prompt=prompt) for request, prompt in requests.items()
    }


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("rollback", ["any", "none"])
def test_batches_narrower_than_the_prompt(batch_size: int, rollback: str) -> None:
    main = FakeBackend(bias=RARE_END, batch_size=batch_size, rollback=rollback)
    drafter = ModelDrafter(FakeBackend(noise=0.5, batch_size=batch_size), 12)
    got = run(Request(PROMPTS[2], GREEDY, SpeculationSettings(p_min=0.0)), drafter, main)
    assert got == plain(prompt=PROMPTS[2])


def test_a_prompt_is_read_on_while_another_drafts_as_much_as_it_can() -> None:
    text = [*PROMPT, *plain().tokens]
    main = FakeBackend(bias=RARE_END, batch_size=8, max_rows=8)
    engine = CheckedEngine(main, FakeVocabulary(), [follows(text)], slots=2)
    speculation = SpeculationSettings(draft_max=64, p_min=0.0)
    first = engine.submit(Request(PROMPT, GREEDY, speculation))
    engine.step()
    second = engine.submit(Request((6, 2, 6, 2), GREEDY, speculation))
    order = [event.request for _ in range(3) for event in engine.step()]
    assert {first, second} == set(order)


def test_a_cancelled_request_ends_once_in_every_phase() -> None:
    engine = CheckedEngine(
        FakeBackend(bias=RARE_END, batch_size=3), FakeVocabulary(), [drafters()["near model"]()], slots=2
    )
    requests = [engine.submit(Request(PROMPT, GREEDY, FIXED)) for _ in range(5)]
    for steps, request in enumerate(requests):
        events = [event for _ in range(steps) for event in engine.step()]
        assert not any(isinstance(event, FinishEvent) for event in events)
        [end] = [event for event in engine.cancel(request) if isinstance(event, FinishEvent)]
        assert end == FinishEvent(request, FinishReason.CANCELLED)
        assert engine.cancel(request) == []
    assert not engine.busy
    assert engine.cancel(12345) == []
    survivor = engine.submit(Request(PROMPT, GREEDY, FIXED))
    assert drain(engine)[survivor] == plain()


def test_a_generator_closed_early_frees_its_slot() -> None:
    engine = CheckedEngine(FakeBackend(bias=RARE_END), FakeVocabulary(), [drafters()["near model"]()])
    for count in range(6):
        events = engine.generate(Request(PROMPT, GREEDY, FIXED))
        for _ in range(count):
            next(events)
        events.close()
        assert not engine.busy
    assert Outcome.of(engine.generate(Request(PROMPT, GREEDY, FIXED))) == plain()


@pytest.mark.parametrize("where", ["main", "draft"])
@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize("error", [DecodeError("broken"), DecodeAborted("stopped")])
def test_an_error_of_a_model_ends_everyone_running_once(
    where: str, number: int, error: LlamaspecError
) -> None:
    failures = {number: error}
    main = FakeBackend(bias=RARE_END, failures=failures if where == "main" else None)
    draft = FakeBackend(noise=0.5, failures=failures if where == "draft" else None)
    engine = CheckedEngine(main, FakeVocabulary(), [ModelDrafter(draft, 12)], slots=2)
    requests = [engine.submit(Request(prompt, GREEDY, FIXED)) for prompt in PROMPTS[:3]]
    outcomes = drain(engine)
    assert [outcomes[request].reason for request in requests] == [
        FinishReason.ERROR,
        FinishReason.ERROR,
        FinishReason.LENGTH,
    ]
    assert all(outcomes[request].error is error for request in requests[:2])
    assert outcomes[requests[2]] == plain(prompt=PROMPTS[2])
    assert not any(main.held.values())
    assert not any(draft.held.values())


def test_generate_raises_what_ended_it() -> None:
    error = DecodeError("broken")
    engine = CheckedEngine(FakeBackend(bias=RARE_END, failures={4: error}), FakeVocabulary())
    with pytest.raises(DecodeError) as caught:
        list(engine.generate(Request(PROMPT, GREEDY, FIXED)))
    assert caught.value is error
    assert not engine.busy
    assert Outcome.of(engine.generate(Request(PROMPT, GREEDY, FIXED))) == plain()


@pytest.mark.parametrize("last", range(5))
def test_a_grammar_that_allows_nothing_ends_its_own_request_alone(last: int) -> None:
    engine = CheckedEngine(
        FakeBackend(bias=RARE_END), FakeVocabulary(), [drafters()["near model"]()], slots=2
    )
    stuck = engine.submit(Request(PROMPT, GREEDY, FIXED, grammar=Alternating(last=last)))
    free = engine.submit(Request(PROMPT, GREEDY, FIXED))
    outcomes = drain(engine)
    assert isinstance(outcomes[stuck].error, GrammarError)
    assert len(outcomes[stuck].tokens) <= last
    assert outcomes[free] == plain()


def test_closing_ends_every_request_once() -> None:
    closed: list[bool] = []
    engine = CheckedEngine(
        FakeBackend(bias=RARE_END), FakeVocabulary(), slots=2, on_close=lambda: closed.append(True)
    )
    requests = [engine.submit(Request(prompt, GREEDY, FIXED)) for prompt in PROMPTS[:4]]
    early = [event for _ in range(3) for event in engine.step()]
    assert not any(isinstance(event, FinishEvent) for event in early)
    ends = Counter(event for event in engine.close() if isinstance(event, FinishEvent))
    assert ends == {FinishEvent(request, FinishReason.CANCELLED): 1 for request in requests}
    assert engine.close() == []
    assert closed == [True]
    for use in (engine.step, lambda: engine.submit(Request(PROMPT)), lambda: engine.logits(PROMPT)):
        with pytest.raises(ClosedError):
            use()
    assert engine.cancel(requests[0]) == []


def test_prompts_that_cannot_run_are_refused() -> None:
    engine = Engine(FakeBackend(context_size=8), FakeVocabulary())
    for prompt in ((), (12,), (-1,)):
        with pytest.raises(UsageError):
            engine.submit(Request(prompt))
    with pytest.raises(ContextError, match=r"8 tokens and the context 8"):
        engine.submit(Request((1,) * 8))
    assert not engine.busy


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_logits_of_a_text_leave_nothing_behind(batch_size: int) -> None:
    main = FakeBackend(bias=RARE_END, batch_size=batch_size)
    engine = CheckedEngine(main, FakeVocabulary())
    row = engine.logits(PROMPTS[2])
    assert Outcome.of(engine.generate(Request(PROMPT, GREEDY, FIXED))) == plain()
    np.testing.assert_array_equal(row, main.logits(PROMPTS[2]))
    engine.submit(Request(PROMPT))
    with pytest.raises(UsageError):
        engine.logits(PROMPT)


class NotNumbers(FakeBackend):
    """A model that is broken from the third token of a text on."""

    def logits(self, text: Sequence[int]) -> Row:
        row = super().logits(text)
        return row if len(text) < len(PROMPT) + 3 else np.full_like(row, np.nan)


def test_a_main_model_without_numbers_is_an_error_of_the_request() -> None:
    outcome = drain_one(Engine(NotNumbers(bias=RARE_END), FakeVocabulary()))
    assert isinstance(outcome.error, DecodeError)
    assert outcome.tokens == plain().tokens[:3]


@pytest.mark.parametrize("p_min", [0.0, 0.5])
def test_a_draft_model_without_numbers_drafts_nothing(p_min: float) -> None:
    engine = CheckedEngine(FakeBackend(bias=RARE_END), FakeVocabulary(), [ModelDrafter(NotNumbers(), 12)])
    assert drain_one(engine, SpeculationSettings(p_min=p_min)) == plain()


def drain_one(engine: Engine, speculation: SpeculationSettings | None = None) -> Outcome:
    request = engine.submit(Request(PROMPT, GREEDY, speculation or FIXED))
    return drain(engine)[request]
