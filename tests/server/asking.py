"""A guard asked by hand: requests as ASGI messages, one at a time."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from llamaspec.server.guard import Guard, GuardOptions


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


class Recorder:
    """An application that answers with the body it got, and keeps count."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert not message["more_body"]
        self.bodies.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]})
        await send({"type": "http.response.body", "body": message["body"], "more_body": False})


async def never() -> AsyncIterator[Message]:
    """A client that is there and sends nothing."""
    await asyncio.Event().wait()
    yield {}


async def pieces(*chunks: bytes, then: AsyncIterator[Message] | None = None) -> AsyncIterator[Message]:
    for number, chunk in enumerate(chunks, start=1):
        yield {"type": "http.request", "body": chunk, "more_body": then is not None or number < len(chunks)}
    async for message in then or never():
        yield message


async def gone() -> AsyncIterator[Message]:
    yield {"type": "http.disconnect"}


async def asked(
    guard: Guard,
    path: str = "/v1/models",
    *,
    method: str = "GET",
    host: str | None = "localhost:8080",
    headers: Iterable[tuple[str, str]] = (),
    scheme: str = "http",
    messages: AsyncIterator[Message] | None = None,
) -> Answer:
    sent = [*([("host", host)] if host is not None else []), *headers]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": scheme,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent],
    }
    stream = messages or pieces(b"")
    answer = Answer()

    async def receive() -> Message:
        return await anext(stream)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await guard(scope, receive, send)
    return answer


def ask(options: GuardOptions = GuardOptions(), *args: Any, **details: Any) -> Answer:  # noqa: B008
    return asyncio.run(asked(Guard(Recorder(), options), *args, **details))
