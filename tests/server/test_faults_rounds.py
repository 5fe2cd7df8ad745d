"""Clients that go away, and an engine that fails, with the engine's rounds let through one by one."""

import asyncio
import json
import queue
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai_app import CHAT, HELLO, TEXT, app_of, ask, tiny_service
from starlette.types import Message

from llamaspec.errors import DecodeError
from llamaspec.events import Event
from llamaspec.server.service import Limits, Service

PATIENCE = 20.0
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HELLO, "max_tokens": 400},
    TEXT: {"prompt": "Once", "max_tokens": 400},
    "/completion": {"prompt": "Once", "n_predict": 400},
}


class Rounds:
    """The engine's rounds: each waits until it is allowed, or for an error that it is to fail with."""

    def __init__(self, service: Service) -> None:
        self._engine = service.session.loaded.engine
        self._step = self._engine.step
        self._allowed: queue.Queue[Exception | None] = queue.Queue()
        self.begun: queue.Queue[None] = queue.Queue()
        self.open = False
        self._engine.step = self._held  # type: ignore[method-assign]

    def _held(self) -> list[Event]:
        self.begun.put(None)
        if not self.open and (error := self._allowed.get(timeout=PATIENCE)) is not None:
            raise error
        return self._step()

    def allow(self) -> None:
        self._allowed.put(None)

    def fail(self, error: Exception) -> None:
        self._allowed.put(error)

    async def begin(self) -> None:
        """Wait until one stands before its gate."""
        await asyncio.to_thread(self.begun.get, timeout=PATIENCE)

    def release(self) -> None:
        self.open = True
        self.allow()


@contextmanager
def held(folder: Path) -> Iterator[tuple[Service, Rounds]]:
    with tiny_service(folder, parallel=1, limits=Limits(max_waiting=2)) as service:
        rounds = Rounds(service)
        try:
            yield service, rounds
        finally:
            rounds.release()


class Visit:
    """One request as ASGI messages. `leave` is what the server sees of a client that has gone."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.leave = asyncio.Event()

    async def status(self) -> int:
        message = await self.sent.get()
        assert message["type"] == "http.response.start"
        return int(message["status"])

    async def text(self) -> str:
        return bytes((await self.sent.get()).get("body", b"")).decode()


@asynccontextmanager
async def visiting(
    service: Service, path: str, body: dict[str, Any]
) -> AsyncIterator[tuple[Visit, "asyncio.Task[None]"]]:
    visit = Visit()
    pending: list[Message] = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        **{"type": "http", "method": "POST", "path": path, "scheme": "http", "query_string": b""},
        **{"headers": headers, "http_version": "1.1", "asgi": {"version": "3.0", "spec_version": "2.4"}},
    }

    async def receive() -> Message:
        if pending:
            return pending.pop()
        await visit.leave.wait()
        return {"type": "http.disconnect"}

    async with asyncio.timeout(PATIENCE):
        task: asyncio.Task[None] = asyncio.create_task(app_of(service)(scope, receive, visit.sent.put))
        try:
            yield visit, task
        finally:
            visit.leave.set()
            await task


def in_a_loop(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_has_its_slot_for_one_round_more(
    tmp_path: Path, path: str, stream: bool
) -> None:
    with held(tmp_path) as (service, rounds):

        async def scene() -> None:
            asked = {**BODIES[path], "ignore_eos": True, "stream": stream}
            async with visiting(service, path, asked) as (visit, task):
                for _ in range(3):
                    await rounds.begin()
                    rounds.allow()
                await rounds.begin()
                if stream:
                    assert await visit.status() == 200
                    assert (await visit.text()).startswith("data: ")
                assert service.stats()["slots"][0]["busy"]
                visit.leave.set()
                await task
            rounds.allow()  # the one that had begun
            await until_free(service)
            assert rounds.begun.empty()
            (entry,) = service.stats()["history"]
            assert entry["finish_reason"] == "cancelled"

        in_a_loop(scene)


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_goes_away_in_the_queue_leaves_it(tmp_path: Path, path: str) -> None:
    with held(tmp_path) as (service, rounds):

        async def scene() -> None:
            async with visiting(service, path, {**BODIES[path], "ignore_eos": True}) as (first, running):
                await rounds.begin()
                async with visiting(service, path, BODIES[path]):
                    while not service.worker.waiting:
                        await asyncio.sleep(0)
                rounds.allow()
                await rounds.begin()
                assert service.worker.waiting == 0
                assert not running.done()
                first.leave.set()
                await running
            rounds.allow()
            await until_free(service)

        in_a_loop(scene)


def test_a_step_that_fails_fails_everyone_now_and_later(tmp_path: Path) -> None:
    with held(tmp_path) as (service, rounds):

        async def scene() -> None:
            async with (
                visiting(service, TEXT, {**BODIES[TEXT], "ignore_eos": True, "stream": True}) as (
                    first,
                    told,
                ),
                visiting(service, CHAT, BODIES[CHAT]) as (second, waited),
            ):
                for _ in range(2):
                    await rounds.begin()
                    rounds.allow()
                await rounds.begin()
                while not service.worker.waiting:
                    await asyncio.sleep(0)
                rounds.fail(DecodeError("llama.cpp could not evaluate the batch."))
                await asyncio.gather(told, waited)
                assert await first.status() == 200
                assert await second.status() >= 500
                texts = [await first.text() for _ in range(first.sent.qsize())]
                assert sum('"error"' in text for text in texts) == 1
                assert '"error"' in next(text for text in reversed(texts) if text)
                assert "[DONE]" not in "".join(texts)

        in_a_loop(scene)
        later = ask(service, TEXT, BODIES[TEXT])
        assert later.status_code == 503
        assert int(later.headers["retry-after"]) > 0
        health = ask(service, "/health")
        assert health.status_code == 503
        assert "failed" in health.json()["error"]["message"]
        assert service.stats()["queue"]["waiting"] == 0
        assert not any(slot["busy"] for slot in service.stats()["slots"])
        assert {entry["finish_reason"] for entry in service.stats()["history"]} == {"error"}


def test_an_error_that_nobody_expects_leaves_nobody_waiting(tmp_path: Path) -> None:
    with held(tmp_path) as (service, rounds):

        async def scene() -> None:
            async with visiting(service, TEXT, BODIES[TEXT]) as (visit, task):
                await rounds.begin()
                rounds.fail(ZeroDivisionError("a secret of the inside"))
                await task
                assert await visit.status() == 503
                assert "secret" not in await visit.text()

        in_a_loop(scene)
        assert "secret" not in ask(service, "/health").text


def test_a_request_that_the_engine_chokes_on_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choke(*_: object) -> int:
        raise ZeroDivisionError("a secret of the inside")

    async def scene(service: Service) -> None:
        async with visiting(service, TEXT, BODIES[TEXT]) as (visit, _):
            assert await visit.status() == 500
            assert "secret" not in await visit.text()

    with tiny_service(tmp_path) as service:
        monkeypatch.setattr(service.session.loaded.engine, "submit", choke)
        with pytest.raises(ZeroDivisionError):  # which uvicorn logs, when the client has had its answer
            asyncio.run(scene(service))


def test_a_listener_that_fails_costs_nobody_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError("The pipe of the log is broken.")

    with tiny_service(tmp_path) as service:
        monkeypatch.setattr(service, "_on_end", fail)
        for _ in range(2):
            assert ask(service, TEXT, {"prompt": "Once", "max_tokens": 2}).status_code == 200


async def until_free(service: Service) -> None:
    async with asyncio.timeout(PATIENCE):
        while any(slot["busy"] for slot in service.stats()["slots"]) or not service.stats()["history"]:
            await asyncio.sleep(0.01)
