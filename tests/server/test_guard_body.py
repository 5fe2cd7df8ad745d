import asyncio
import http.client
from collections.abc import AsyncIterator

import pytest
from asking import Answer, Recorder, ask, asked, gone, never, pieces
from starlette.types import Message, Receive, Scope, Send
from thread_server import PATIENCE, answered, received, running

from llamaspec.server.guard import Guard, GuardOptions

SMALL = GuardOptions(max_body_bytes=10, max_arriving_bytes=15, body_seconds=30)
CHUNKED = {"Transfer-Encoding": "chunked"}


def test_the_body_comes_whole_and_after_it_what_really_happens() -> None:
    seen: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([await receive(), await receive()])

    messages = pieces(b"one ", b"two", then=None)

    async def leaving() -> AsyncIterator[Message]:
        yield await anext(messages)
        yield await anext(messages)
        yield {"type": "http.disconnect"}

    asyncio.run(asked(Guard(app, GuardOptions()), method="POST", messages=leaving()))
    assert seen == [
        {"type": "http.request", "body": b"one two", "more_body": False},
        {"type": "http.disconnect"},
    ]


@pytest.mark.parametrize(
    ("length", "status"),
    [("10", 200), ("11", 413), ("9" * 5000, 413), ("-1", 400), ("1e3", 400), ("\xb2", 400)],
)
def test_a_declared_length_is_judged_before_anything_is_read(length: str, status: int) -> None:
    messages = pieces(b"") if status == 200 else never()
    answer = ask(SMALL, method="POST", headers=[("content-length", length)], messages=messages)
    assert answer.status == status


def test_an_undeclared_body_is_cut_at_the_limit() -> None:
    app = Recorder()
    guard = Guard(app, SMALL)
    assert asyncio.run(asked(guard, method="POST", messages=pieces(b"12345", b"67890"))).body == b"1234567890"
    answer = asyncio.run(asked(guard, method="POST", messages=pieces(b"1234567890", b"1", then=never())))
    assert answer.status == 413
    assert answer.error["message"] == "The body is larger than 10 bytes."
    assert app.bodies == [b"1234567890"]


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    app = Recorder()
    options = GuardOptions(body_seconds=0.01)
    answer = asyncio.run(asked(Guard(app, options), method="POST", messages=pieces(b"{", then=never())))
    assert answer.status == 408
    assert answer.headers["connection"] == "close"
    assert app.bodies == []


def test_who_goes_away_while_sending_is_not_heard() -> None:
    app = Recorder()
    answer = asyncio.run(asked(Guard(app, SMALL), method="POST", messages=pieces(b"{", then=gone())))
    assert answer == Answer()
    assert app.bodies == []


def test_what_arrives_at_once_is_bounded_and_forgotten_afterwards() -> None:
    async def several() -> tuple[Answer, Answer, Answer]:
        guard = Guard(Recorder(), SMALL)
        held, release = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[Message]:
            yield {"type": "http.request", "body": b"123456789", "more_body": True}
            held.set()
            await release.wait()
            yield {"type": "http.request", "body": b"", "more_body": False}

        first = asyncio.create_task(asked(guard, method="POST", messages=slow()))
        await held.wait()
        second = await asked(guard, method="POST", messages=pieces(b"1234567"))
        release.set()
        return await first, second, await asked(guard, method="POST", messages=pieces(b"1234567"))

    first, second, third = asyncio.run(several())
    assert (first.status, second.status, third.status) == (200, 503, 200)
    assert int(second.headers["retry-after"]) > 0


def test_over_the_wire_a_refused_body_leaves_the_connection_in_use() -> None:
    with running(Guard(Recorder(), SMALL)) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        client.request("POST", "/", body=iter([bytes(1 << 16)] * 20), encode_chunked=True, headers=CHUNKED)
        assert client.getresponse().status == 413
        client.close()
        client.request("POST", "/", body=bytes(1 << 20))
        refused = client.getresponse()
        assert (refused.status, refused.read()[:9]) == (413, b'{"error":')
        connection = client.sock
        client.request("POST", "/", body=b"12345")
        assert client.getresponse().read() == b"12345"
        assert client.sock is connection
        client.close()


def test_over_the_wire_a_body_that_does_not_come_is_not_waited_for() -> None:
    start = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    guard = Guard(Recorder(), GuardOptions(body_seconds=0.05))
    with running(guard) as server, server.connect(start) as connection:
        status, _, body = answered(connection)
    assert status == 408
    assert body["error"]["type"] == "invalid_request_error"


def test_over_the_wire_nobody_is_told_to_go_on_with_a_body_that_is_refused() -> None:
    start = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n"
    start += b"Connection: close\r\n\r\n"
    guard = Guard(Recorder(), GuardOptions(keys=("sk-first",)))
    with running(guard) as server, server.connect(start) as connection:
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100" not in answer.partition(b"\r\n")[0]
