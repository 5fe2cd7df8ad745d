"""A server in a thread of the test, an application to serve, and clients made of bare sockets."""

import asyncio
import http.client
import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from llamaspec.server.serving import Server, ServingOptions, listen

PATIENCE = 20.0  # for what must happen: a test that fails, not one that is slow
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET_HELD = GET.replace(b" / ", b" /held ")


class App:
    """/ answers at once, /held when `release` is set, /deaf never, /flood sends more than anyone takes."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.ended = threading.Event()
        self.left: list[Message] = []
        self.scopes: list[Scope] = []
        self.lifespan: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._release: asyncio.Event | None = None

    def release(self) -> None:
        assert self._loop is not None
        assert self._release is not None
        self._loop.call_soon_threadsafe(self._release.set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.scopes.append(scope)
        self.entered.set()
        try:
            await self._answer(scope["path"], receive, send)
        finally:
            self.ended.set()

    async def _live(self, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        self._release = asyncio.Event()
        for _ in range(2):
            kind = (await receive())["type"]
            self.lifespan.append(kind)
            await send({"type": f"{kind}.complete"})

    async def _answer(self, path: str, receive: Receive, send: Send) -> None:
        assert self._release is not None
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", path.encode())]})
        if path == "/flood":
            for _ in range(2000):
                await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
        elif path == "/deaf":
            await asyncio.Event().wait()
        elif path == "/held":
            await send({"type": "http.response.body", "body": b"held ", "more_body": True})
            release = asyncio.create_task(self._release.wait())
            leave = asyncio.create_task(self._leave(receive))
            _, pending = await asyncio.wait([release, leave], return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
        await send({"type": "http.response.body", "body": b"done", "more_body": False})

    async def _leave(self, receive: Receive) -> None:
        while (message := await receive())["type"] != "http.disconnect":
            pass
        self.left.append(message)


class Running:
    """A server in a thread."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.told: list[int] = []
        self.drained = threading.Event()
        self.listener = listen(ServingOptions(**{"port": 0, **options}))
        self.port = self.listener.port
        self._ready = threading.Event()
        self._app = app
        self.server = Server(app, self.listener, self._on_ready, self._on_drain)
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    def _on_ready(self, port: int) -> None:
        self.told.append(port)
        self._ready.set()

    def _on_drain(self) -> None:
        self.drained.set()

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(sent)
        return connection

    def get(self, path: str = "/") -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as client:
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read()

    def end(self) -> None:
        self.server.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.listener.close()


@contextmanager
def running(app: Any, **options: Any) -> Iterator[Running]:
    server = Running(app, **options)
    try:
        yield server
    finally:
        server.end()


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    chunks = []
    with suppress(ConnectionError):
        while chunk := connection.recv(1 << 16):
            chunks.append(chunk)
    return b"".join(chunks)


def answered(connection: socket.socket) -> tuple[int, dict[str, str], dict[str, Any]]:
    """One whole answer with a JSON body, after which the connection is closed."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    body = json.loads(answer.read())
    assert received(connection) == b""
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


def drip(connection: socket.socket, drops: bytes) -> int:
    """Send one byte after the other until the other side has had enough; how many it took."""
    for count, drop in enumerate(drops * 100):
        if select.select([connection], [], [], 0.02)[0]:
            assert received(connection) == b""
            return count
        with suppress(ConnectionError):
            connection.send(bytes([drop]))
    raise AssertionError("the connection stays open")


def until_refused(port: int) -> None:
    for _ in range(1000):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
                received(connection)
        except ConnectionRefusedError:
            return
    raise AssertionError("the server still accepts")
