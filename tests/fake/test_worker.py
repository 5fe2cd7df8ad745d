"""The engine in its own thread: every request ends once, whatever happens."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fake.backend import FakeBackend, FakeVocabulary
from fake.running import FIXED, GREEDY, PROMPT, RARE_END, Outcome, drafters, plain
from llamaspec.decode.sequence import Request
from llamaspec.engine.engine import Engine
from llamaspec.engine.worker import Ticket, Worker
from llamaspec.errors import (
    ClosedError,
    ContextError,
    DecodeError,
    EngineFailedError,
    LlamaspecError,
    QueueFullError,
)
from llamaspec.events import Event, FinishEvent, FinishReason
from llamaspec.settings import SamplingSettings, SpeculationSettings
from llamaspec.stats import Stats

ENDLESS = SamplingSettings(temperature=0.0, ignore_eos=True)
ASKED = Request(PROMPT, GREEDY, FIXED, cache_prompt=True)


@asynccontextmanager
async def working(main: FakeBackend | None = None, **options: Any) -> AsyncIterator[Worker]:
    engine = Engine(
        main or FakeBackend(bias=RARE_END, context_size=4096),
        FakeVocabulary(),
        [drafters()["near model"]()],
        slots=2,
    )
    worker = Worker(engine, **options)
    try:
        yield worker
    finally:
        await asyncio.to_thread(worker.close)


async def outcome(ticket: Ticket) -> Outcome:
    async with ticket:
        return Outcome.of([event async for event in ticket])


async def first_of(ticket: Ticket) -> AsyncIterator[Event]:
    events = aiter(ticket)
    await anext(events)
    return events


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    return lambda: asyncio.run(test())


@in_a_loop
async def test_many_requests_get_what_each_gets_alone() -> None:
    ended: list[int] = []
    async with working(on_finish=lambda ticket, finish: ended.append(ticket.id)) as worker:
        tickets = [worker.submit(ASKED) for _ in range(7)]
        assert await asyncio.gather(*map(outcome, tickets)) == [plain()] * 7
        assert all(ticket.stats.predicted_tokens for ticket in tickets)
        assert worker.waiting == 0
    assert sorted(ended) == list(range(7))


@in_a_loop
async def test_leaving_the_block_ends_a_request() -> None:
    async with working() as worker:
        async with worker.submit(Request(PROMPT, ENDLESS, FIXED)) as ticket:
            events = await first_of(ticket)
        *_, last = [event async for event in events]
        assert last == FinishEvent(ticket.id, FinishReason.CANCELLED)
        ticket.cancel()
        assert await outcome(worker.submit(ASKED)) == plain()


@in_a_loop
async def test_a_request_that_waits_can_be_cancelled() -> None:
    async with working() as worker:
        running = [worker.submit(Request(PROMPT, ENDLESS, FIXED)) for _ in range(2)]
        waiting = worker.submit(ASKED)
        assert worker.waiting == 1
        waiting.cancel()
        assert (await outcome(waiting)).reason is FinishReason.CANCELLED
        for ticket in running:
            ticket.cancel()
            assert (await outcome(ticket)).reason is FinishReason.CANCELLED


@in_a_loop
async def test_a_full_queue_refuses() -> None:
    async with working(max_waiting=1) as worker:
        tickets = [worker.submit(Request(PROMPT, ENDLESS, FIXED)) for _ in range(3)]
        with pytest.raises(QueueFullError):
            worker.submit(ASKED)
        tickets[0].cancel()
        assert (await outcome(tickets[0])).reason is FinishReason.CANCELLED
        worker.submit(ASKED).cancel()


@in_a_loop
async def test_a_request_that_can_not_be_run_fails_alone() -> None:
    async with working() as worker:
        with pytest.raises(ContextError):
            await outcome(worker.submit(Request((1,) * 5000, GREEDY, FIXED)))
        assert await outcome(worker.submit(ASKED)) == plain()
        assert worker.failure is None


@pytest.mark.parametrize("error", [DecodeError("broken"), ZeroDivisionError("a fault of ours")])
def test_a_failing_step_fails_every_current_and_later_request(error: Exception) -> None:
    async def test() -> None:
        main = FakeBackend(bias=RARE_END, context_size=4096, failures={9: error})
        async with working(main) as worker:
            tickets = [worker.submit(Request(PROMPT, ENDLESS, FIXED)) for _ in range(4)]
            for ticket in tickets:
                with pytest.raises(LlamaspecError):
                    await outcome(ticket)
            assert worker.failure is not None
            with pytest.raises(EngineFailedError):
                worker.submit(ASKED)

    asyncio.run(test())


@in_a_loop
async def test_closing_ends_what_runs_and_what_waits() -> None:
    async with working() as worker:
        tickets = [worker.submit(Request(PROMPT, ENDLESS, FIXED)) for _ in range(4)]
        worker.stop()
        assert {(await outcome(ticket)).reason for ticket in tickets} == {FinishReason.CANCELLED}
        with pytest.raises(ClosedError):
            worker.submit(ASKED)


@in_a_loop
async def test_idleness_is_told_after_work() -> None:
    idle = threading.Event()
    async with working(on_idle=idle.set) as worker:
        assert await asyncio.to_thread(idle.wait, 10)
        idle.clear()
        assert await outcome(worker.submit(ASKED)) == plain()
        assert await asyncio.to_thread(idle.wait, 10)


@in_a_loop
async def test_requests_that_are_handed_in_together_share_every_batch() -> None:
    async with working() as worker:
        request = Request(PROMPT, GREEDY, SpeculationSettings(mode="off"))
        await outcome(worker.submit(request))
        alone = worker._engine.decodes
        tickets = worker.submit_all([request, request])
        assert await asyncio.gather(*map(outcome, tickets)) == [plain()] * 2
        assert worker._engine.decodes == 2 * alone


@in_a_loop
async def test_of_requests_that_are_handed_in_together_all_are_taken_or_none() -> None:
    async with working(max_waiting=1) as worker:
        with pytest.raises(QueueFullError):
            worker.submit_all([ASKED] * 4)
        assert await asyncio.gather(*map(outcome, worker.submit_all([ASKED] * 3))) == [plain()] * 3


@in_a_loop
async def test_where_one_makes_the_engine_fail_those_handed_in_with_it_hear_of_it() -> None:
    async with working() as worker:

        def broken(request: Request, stats: Stats | None = None) -> int:
            raise RuntimeError("out of its wits")

        worker._engine.submit = broken  # type: ignore[method-assign]
        tickets = worker.submit_all([ASKED] * 2)
        heard = await asyncio.gather(*map(outcome, tickets), return_exceptions=True)
        assert all(isinstance(error, RuntimeError | EngineFailedError) for error in heard)
    assert worker.failure is not None
