"""Streams and clients: what breaks off, who goes away, and that nothing runs on afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai_app import CHAT, HELLO, TEXT, app_of, chat, tiny_service
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from llamaspec.decode.sequence import Request
from llamaspec.engine.worker import Ticket
from llamaspec.errors import DecodeError, QueueFullError
from llamaspec.events import Event, FinishEvent, FinishReason, TextEvent
from llamaspec.server.service import Limits, Service
from llamaspec.server.streaming import EventStream, merged, unless_gone

TEXT_EVENT = TextEvent(0, "x", (1,), drafted=False)
FINISH = FinishEvent(0, FinishReason.STOP)

Message = dict[str, Any]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_service(tmp_path_factory.mktemp("models"), limits=Limits(max_waiting=1)) as served:
        yield served


def ticket(*events: Event) -> tuple[Ticket, list[Ticket]]:
    """A ticket to which these events have come, and the list of those that were cancelled."""
    cancelled: list[Ticket] = []
    made = Ticket(Request((1,)), cancelled.append)
    if events:
        made.deliver(list(events))
    return made, cancelled


def test_events_of_several_tickets_are_told_apart() -> None:
    async def places() -> list[int]:
        first, _ = ticket(TEXT_EVENT, FINISH)
        second, _ = ticket(TEXT_EVENT, TEXT_EVENT, FINISH)
        return [place async for place, _ in merged([first, second])]

    assert sorted(asyncio.run(places())) == [0, 0, 1, 1, 1]


def test_an_error_of_one_ends_all() -> None:
    async def failing() -> list[Ticket]:
        first, _ = ticket(FinishEvent(0, FinishReason.ERROR, DecodeError("It failed.")))
        second, cancelled = ticket(TEXT_EVENT)
        with pytest.raises(DecodeError):
            async for _ in merged([first, second]):
                pass
        assert cancelled == [second]
        return cancelled

    assert asyncio.run(failing())


def test_a_stream_that_breaks_off_ends_with_the_error() -> None:
    async def chunks() -> AsyncIterator[Message]:
        yield {"text": "line\nline"}
        raise QueueFullError("Too many.")

    async def run() -> list[bytes]:
        unfinished, cancelled = ticket(TEXT_EVENT)
        sent = await respond(EventStream([unfinished], chunks()))
        assert cancelled == [unfinished]
        return sent

    first, last = (json.loads(data.removeprefix(b"data: ")) for data in asyncio.run(run()))
    assert first == {"text": "line\nline"}
    assert last["error"]["message"] == "Too many."
    assert last["error"]["type"] == "unavailable_error"


async def respond(response: Response) -> list[bytes]:
    """What a response sends to a client that stays."""
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        if message.get("body"):
            sent.append(message["body"])

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    await response({"type": "http", "method": "POST"}, receive, send)
    return sent


def test_errors_that_are_the_server_s_own_tell_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def chunks() -> AsyncIterator[Message]:
        raise RuntimeError("/secret/path")
        yield {}

    sent = asyncio.run(respond(EventStream([], chunks())))
    assert b"secret" not in b"".join(sent)
    assert json.loads(sent[-1].removeprefix(b"data: "))["error"]["type"] == "server_error"
    assert "broke off" in caplog.text


def test_work_for_a_client_that_goes_is_cancelled() -> None:
    async def run() -> str:
        begun, outcome = asyncio.Event(), []

        async def work() -> str:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                outcome.append("cancelled")
                raise
            return "never"

        async def receive() -> Message:
            await begun.wait()
            return {"type": "http.disconnect"}

        answer = await unless_gone(HttpRequest({"type": "http"}, receive), work())
        assert isinstance(answer, Response)
        return outcome[0]

    assert asyncio.run(run()) == "cancelled"


def test_where_one_is_refused_none_is_started(service: Service) -> None:
    async def run() -> None:
        request = service.session.prepare(
            [1, 2], settings={"sampling": {"n_predict": 400, "ignore_eos": True}}
        )
        with pytest.raises(QueueFullError):
            await service.start_all([request] * 9, kind="test")
        while service.session.loaded.engine.busy or service.worker.waiting:
            await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("path", "prompt"), [(CHAT, {"messages": HELLO}), (TEXT, {"prompt": "the hen"})])
def test_a_client_that_goes_away_frees_its_slot(
    service: Service, path: str, prompt: dict[str, Any], stream: bool
) -> None:
    """It goes when its first text is there or, where nothing is streamed, when the engine is at work."""

    async def run() -> None:
        body = json.dumps(
            {**prompt, "max_tokens": 480, "ignore_eos": True, "stream": stream, "n": 2}
        ).encode()
        goes = asyncio.Event()
        inbox: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        statuses: list[int] = []

        async def receive() -> Message:
            if inbox:
                return inbox.pop()
            if stream:
                await goes.wait()
            while not service.session.loaded.engine.busy:
                await asyncio.sleep(0)
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            elif b"assistant" not in message["body"]:
                goes.set()

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
        await app_of(service)({**scope, "scheme": "http", "http_version": "1.1"}, receive, send)
        assert statuses == [200 if stream else 499]
        while service.session.loaded.engine.busy:
            await asyncio.sleep(0)

    asyncio.run(run())
    assert [entry["finish_reason"] for entry in service.activity.as_dict()["history"][:2]] == [
        "cancelled"
    ] * 2
    assert chat(service, max_tokens=2)["choices"]
