"""The engine's own thread, and the bridge from there to asyncio.

Only this thread touches the engine. Others put what they want into its inbox; what comes of a request
goes back, round by round, to the event loop that asked for it.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

from llamaspec.decode.sequence import Request
from llamaspec.engine.engine import Engine
from llamaspec.errors import ClosedError, EngineFailedError, LlamaspecError, QueueFullError
from llamaspec.events import Event, FinishEvent, FinishReason
from llamaspec.stats import Stats

log = logging.getLogger(__name__)


class Ticket:
    """One request in the worker's hands: an async iterable of its events, of which the last is a FinishEvent.

    A request that failed raises its error in place of that. `stats` counts while it runs. Leaving the
    `async with` block cancels what still runs.
    """

    def __init__(self, request: Request, cancel: Callable[["Ticket"], None], kind: str = "") -> None:
        self.request = request
        self.kind = kind
        self.stats = Stats()
        self.id = -1
        self.done = False
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[list[Event]] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            for event in await self._events.get():
                if isinstance(event, FinishEvent) and event.error is not None:
                    raise event.error
                yield event
                if isinstance(event, FinishEvent):
                    return

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the request within a round. A second call, or one after the end, does nothing."""
        if not self.done:
            self._cancel(self)

    def deliver(self, events: list[Event]) -> None:
        """From the worker's thread. Events of one round arrive together."""
        self.done = self.done or any(isinstance(event, FinishEvent) for event in events)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it who would listen
            self._loop.call_soon_threadsafe(self._events.put_nowait, events)


class Worker:
    """Runs an engine in a thread of its own until `close`.

    `max_waiting` bounds the requests that are waiting for a slot; `on_finish` is told of each one's end,
    `on_idle` of there being nothing left to do, both in the thread. After an error that is not one
    request's own the engine is not trusted any more: every request that runs or waits fails with it, and
    every later one with EngineFailedError.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_waiting: int = 64,
        on_finish: Callable[[Ticket, FinishEvent], None] = lambda ticket, finish: None,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.failure: LlamaspecError | None = None
        self.max_waiting = max_waiting
        self._engine = engine
        self._on_finish = on_finish
        self._on_idle = on_idle
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._tickets: dict[int, Ticket] = {}
        self._lock = threading.Lock()
        self._pending = 0  # handed in and not yet ended
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return max(0, self._pending - self._engine.slots)

    def submit(self, request: Request, kind: str = "") -> Ticket:
        """Hand in one request: see `submit_all`."""
        [ticket] = self.submit_all([request], kind)
        return ticket

    def submit_all(self, requests: Sequence[Request], kind: str = "") -> list[Ticket]:
        """Hand in requests from within an event loop: all or none; `kind` is only carried along.

        Where there is room for them they begin in the same round, and so are decoded in the same batches.
        Raises QueueFullError, EngineFailedError and ClosedError; what the engine has against a request is
        raised where its events are awaited.
        """
        tickets = [Ticket(request, self._cancel, kind) for request in requests]
        with self._lock:
            if self._closed:
                raise ClosedError("The server is shutting down.")
            if self.failure is not None:
                raise EngineFailedError("The engine has failed, and has to be started again.")
            if self._pending + len(tickets) > self._engine.slots + self.max_waiting:
                raise QueueFullError(f"{self.max_waiting} requests are waiting already.", "Try again later.")
            self._pending += len(tickets)
            self._inbox.put(lambda: self._begin_all(tickets))
        return tickets

    def stop(self) -> None:
        """End every request, and take no more. A second call does nothing."""
        with self._lock:
            self._closed = True
            self._inbox.put(None)

    def close(self) -> None:
        """The same, and wait until the thread has ended. The engine stays open."""
        self.stop()
        self._thread.join()

    def _cancel(self, ticket: Ticket) -> None:
        self._inbox.put(lambda: self._end(ticket))

    # In the thread.

    def _run(self) -> None:
        open_ = True
        while open_:
            try:
                open_ = self._take_in()
                if open_ and self._engine.busy:
                    events = self._engine.step()
                    if self._engine.failure is not None:
                        raise self._engine.failure
                    self._hand_out(events)
            except Exception as error:
                self._fail(error)
        for ticket in list(self._tickets.values()):
            try:
                self._end(ticket)
            except Exception as error:
                self._fail(error)

    def _take_in(self) -> bool:
        """All that is in the inbox, waiting for something where nothing else is to do; False: the end."""
        if self._inbox.empty() and not self._engine.busy:
            try:
                self._on_idle()
            except Exception:
                log.exception("What was learnt could not be kept.")
        while not self._engine.busy or not self._inbox.empty():
            wanted = self._inbox.get()
            if wanted is None:
                return False
            wanted()
        return True

    def _begin_all(self, tickets: Sequence[Ticket]) -> None:
        with contextlib.ExitStack() as each:  # is begun, or hears of it, also where one makes the engine fail
            for ticket in reversed(tickets):
                each.callback(self._begin, ticket)

    def _begin(self, ticket: Ticket) -> None:
        if ticket.done:
            return
        if self.failure is not None:
            self._deliver(ticket, [FinishEvent(ticket.id, FinishReason.ERROR, self.failure)])
            return
        try:
            ticket.id = self._engine.submit(ticket.request, ticket.stats)
        except Exception as error:
            self._deliver(ticket, [FinishEvent(ticket.id, FinishReason.ERROR, error)])
            if not isinstance(error, LlamaspecError):
                raise
        else:
            self._tickets[ticket.id] = ticket

    def _end(self, ticket: Ticket) -> None:
        if ticket.done:
            return
        events = self._engine.cancel(ticket.id)
        self._deliver(ticket, events or [FinishEvent(ticket.id, FinishReason.CANCELLED)])

    def _hand_out(self, events: list[Event]) -> None:
        by_request: dict[int, list[Event]] = {}
        for event in events:
            by_request.setdefault(event.request, []).append(event)
        for request, its_events in by_request.items():
            if (ticket := self._tickets.get(request)) is not None:
                self._deliver(ticket, its_events)

    def _deliver(self, ticket: Ticket, events: list[Event]) -> None:
        last = events[-1]
        if isinstance(last, FinishEvent):
            self._tickets.pop(ticket.id, None)
            with self._lock:
                self._pending -= 1
            try:
                self._on_finish(ticket, last)
            except Exception:  # whoever listens: the requests are not to suffer for it
                log.exception("The end of a request could not be told.")
        ticket.deliver(events)

    def _fail(self, error: Exception) -> None:
        log.error("The engine has failed: %s", error, exc_info=not isinstance(error, LlamaspecError))
        failure = EngineFailedError("The engine has failed.", "The server's log says why; start it again.")
        with self._lock:
            self.failure = failure
        for ticket in list(self._tickets.values()):
            self._deliver(ticket, [FinishEvent(ticket.id, FinishReason.ERROR, failure)])
        with contextlib.suppress(Exception):
            self._engine.abandon()
