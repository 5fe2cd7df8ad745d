"""What a request may wish for: its place, news of its prompt, probabilities after sampling."""

import math
from collections.abc import Iterable

import numpy as np
import pytest

from fake.backend import FakeBackend, FakeVocabulary
from fake.running import GREEDY, PLAIN, PROMPT, RARE_END, CheckedEngine, plain
from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.sequence import Request
from llamaspec.errors import UsageError
from llamaspec.events import Event, FinishEvent, ProgressEvent, TextEvent, TokenDetail
from llamaspec.settings import SamplingSettings, SpeculationSettings

LONG = tuple(1 + (7 * place) % 11 for place in range(100))
SAMPLED = SamplingSettings(temperature=0.9, top_k=6, top_p=0.95, min_p=0.05, n_predict=12, seed=3)


def engine_of(slots: int, prompt_chunk: int = 512) -> CheckedEngine:
    main = FakeBackend(bias=RARE_END, cells=4096)
    return CheckedEngine(
        main,
        FakeVocabulary(),
        [ModelDrafter(FakeBackend(noise=0.5, cells=4096), 12)],
        slots=slots,
        spare=2,
        prompt_chunk=prompt_chunk,
    )


def to_the_end(engine: CheckedEngine) -> list[Event]:
    events: list[Event] = []
    while engine.busy:
        events += engine.step()
    return events


def ends(events: Iterable[Event]) -> list[int]:
    return [event.request for event in events if isinstance(event, FinishEvent)]


def test_requests_keep_the_place_that_they_have() -> None:
    engine = engine_of(3)
    first, second, third = (
        engine.submit(Request(PROMPT, GREEDY.model_copy(update={"n_predict": n}))) for n in (1, 40, 40)
    )
    engine.step()
    assert {s.id: s.seat for s in engine.running} == {second: 1, third: 2}
    fourth = engine.submit(Request(PROMPT, GREEDY))
    engine.step()
    assert {s.id: s.seat for s in engine.running} == {second: 1, third: 2, fourth: 0}
    assert sorted([first, *ends(to_the_end(engine))]) == [first, second, third, fourth]


def test_a_place_that_is_wished_for_is_waited_for_and_others_go_by() -> None:
    engine = engine_of(2)
    holder, waiter, other = (engine.submit(Request(PROMPT, GREEDY, seat=seat)) for seat in (1, 1, None))
    engine.step()
    assert {s.id: s.seat for s in engine.running} == {holder: 1, other: 0}
    late = engine.submit(Request(PROMPT, GREEDY))
    seats: dict[int, set[int]] = {}
    finished: list[int] = []
    while engine.busy:
        finished += ends(engine.step())
        for sequence in engine.running:
            seats.setdefault(sequence.id, set()).add(sequence.seat)
    assert seats[waiter] == {1}
    assert seats[late] == {0}
    assert sorted(finished) == [holder, waiter, other, late]


def test_a_request_that_waits_for_its_place_can_be_cancelled() -> None:
    engine = engine_of(2)
    engine.submit(Request(PROMPT, GREEDY, seat=0))
    waiter = engine.submit(Request(PROMPT, GREEDY, seat=0))
    engine.step()
    assert ends(engine.cancel(waiter)) == [waiter]
    assert len(ends(to_the_end(engine))) == 1


@pytest.mark.parametrize("seat", [-1, 2])
def test_a_place_that_is_not_there_is_refused(seat: int) -> None:
    with pytest.raises(UsageError):
        engine_of(2).submit(Request(PROMPT, GREEDY, seat=seat))


def progress_of(events: Iterable[Event], request: int) -> list[ProgressEvent]:
    return [event for event in events if isinstance(event, ProgressEvent) and event.request == request]


def test_progress_is_told_before_the_first_text_to_whom_asked() -> None:
    engine = engine_of(2, prompt_chunk=30)
    asked = engine.submit(Request(LONG, GREEDY, progress=True, cache_prompt=True))
    engine.submit(Request(LONG, GREEDY))
    events = to_the_end(engine)
    told = progress_of(events, asked)
    assert told == [event for event in events if isinstance(event, ProgressEvent)]
    assert told[0].processed == told[0].cached == 0 and told[0].seconds == 0.0
    assert told[-1].processed == len(LONG)
    steps = [event.processed for event in told]
    assert len(steps) > 3 and steps == sorted(set(steps))
    assert all(event.total == len(LONG) for event in told)
    texts = [place for place, event in enumerate(events) if isinstance(event, TextEvent)]
    assert events.index(told[-1]) < texts[0]

    again = engine.submit(Request(LONG, GREEDY, progress=True, cache_prompt=True))
    first, last = progress_of(to_the_end(engine), again)
    assert first.processed == first.cached == last.cached == len(LONG) - 1
    assert last.processed == len(LONG)


def details_of(request: Request) -> list[TokenDetail]:
    engine = engine_of(1)
    engine.submit(request)
    events = to_the_end(engine)
    return [detail for event in events if isinstance(event, TextEvent) for detail in event.details]


@pytest.mark.parametrize("speculation", [PLAIN, SpeculationSettings(mode="fixed", p_min=0.0)])
def test_probabilities_after_sampling_are_those_that_tokens_were_drawn_by(
    speculation: SpeculationSettings,
) -> None:
    details = details_of(Request(PROMPT, SAMPLED, speculation, logprobs=6, post_sampling=True))
    assert len(details) > 2
    text = list(PROMPT)
    for detail in details:
        row = FakeBackend(bias=RARE_END).logits(text).astype(np.float64)
        best = np.argsort(-row, kind="stable")[:6]
        weights = np.exp(row[best] - row[best[0]])
        edges = weights.cumsum()
        keep = min(int(edges.searchsorted(0.95 * edges[-1])) + 1, int((weights >= 0.05).sum()))
        heated = weights[:keep] ** (1 / 0.9)
        expected = dict(zip(best[:keep].tolist(), heated / heated.sum(), strict=True))
        assert {token: math.exp(p) for token, p in detail.top} == pytest.approx(expected)
        assert detail.logprob is not None
        assert math.exp(detail.logprob) == pytest.approx(expected[detail.token])
        text.append(detail.token)


def test_after_greedy_sampling_nothing_is_uncertain() -> None:
    details = details_of(Request(PROMPT, GREEDY, PLAIN, logprobs=3, post_sampling=True))
    assert [detail.token for detail in details][: len(plain().tokens)] == plain().tokens
    assert all(detail.logprob == 0.0 and detail.top == ((detail.token, 0.0),) for detail in details)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_a_seed_draws_the_same_text_in_any_slot(slots: int) -> None:
    """Without drafts, and with the same prompt in the cache or not."""
    alone = [detail.token for detail in details_of(Request(PROMPT, SAMPLED, PLAIN, details=True))]
    engine = engine_of(slots)
    requests = [
        engine.submit(Request(PROMPT, SAMPLED, PLAIN, details=True, cache_prompt=cached))
        for cached in (False, True, True, False, True, False)
    ]
    drawn: dict[int, list[int]] = {request: [] for request in requests}
    for event in to_the_end(engine):
        if isinstance(event, TextEvent):
            drawn[event.request] += [detail.token for detail in event.details]
    assert all(tokens == alone for tokens in drawn.values())
