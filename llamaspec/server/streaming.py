"""The tickets of one HTTP request: queued together, read as one, and given back whatever happens."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llamaspec.engine.worker import Ticket
from llamaspec.errors import LlamaspecError
from llamaspec.events import Event, FinishEvent
from llamaspec.server.problems import as_api_error

_SEND_SECONDS = 60.0  # a client that takes nothing for so long is not coming back

log = logging.getLogger(__name__)

T = TypeVar("T")


async def merged(tickets: Sequence[Ticket]) -> AsyncGenerator[tuple[int, Event]]:
    """The events of all tickets as they come, each with its ticket's place.

    An error of one is raised. When the generator is closed, however it ends, all are cancelled.
    """
    arrived: asyncio.Queue[tuple[int, Event] | Exception] = asyncio.Queue()

    async def read(place: int, ticket: Ticket) -> None:
        try:
            async for event in ticket:
                arrived.put_nowait((place, event))
        except Exception as error:
            arrived.put_nowait(error)

    readers = [asyncio.create_task(read(place, ticket)) for place, ticket in enumerate(tickets)]
    running = len(tickets)
    try:
        while running:
            item = await arrived.get()
            if isinstance(item, Exception):
                raise item
            running -= isinstance(item[1], FinishEvent)
            yield item
    finally:
        cancel_all(tickets)
        for reader in readers:
            reader.cancel()


async def unless_gone(http: HttpRequest, work: Coroutine[Any, Any, T]) -> T | Response:
    """What `work` comes to; where the client goes away first it is cancelled, and nobody reads the answer."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(http))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=499)
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


class EventStream(EventSourceResponse):
    """Objects as server-sent events, the last of which is `end`, or an error in place of it.

    When the response ends, and be it because the client has gone, `tickets` are cancelled.
    """

    def __init__(
        self, tickets: Sequence[Ticket], chunks: AsyncGenerator[Mapping[str, Any]], *, end: str = "[DONE]"
    ) -> None:
        super().__init__(_lines(chunks, end), send_timeout=_SEND_SECONDS)
        self._tickets = tickets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(SendTimeoutError):
                await super().__call__(scope, receive, send)
        finally:
            cancel_all(self._tickets)


async def _lines(chunks: AsyncGenerator[Mapping[str, Any]], end: str) -> AsyncIterator[bytes]:
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                yield _line(json.dumps(chunk, separators=(",", ":")))
        except Exception as error:
            if not isinstance(error, LlamaspecError):
                log.exception("An answer broke off.")
            yield _line(json.dumps(as_api_error(error).body()))
            return
    if end:
        yield _line(end)


def _line(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


def cancel_all(tickets: Sequence[Ticket]) -> None:
    """Give back what still runs."""
    for ticket in tickets:
        ticket.cancel()


async def _gone(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
