"""A whole server among clients that misbehave: the others get their answers, and nothing stays taken."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest
from real_server import (
    STREAMED,
    RealServer,
    all_free,
    connection,
    leave,
    request_bytes,
    serving,
    until_busy,
    wanted,
    whole_answer,
)
from thread_server import until_refused

from llamaspec.server.serving import _allow_files

GUESTS = 200
FLOOD = 500
WELL_BEHAVED = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    _allow_files(2 * FLOOD)
    with serving(tmp_path_factory.mktemp("faults"), "--queue", "64", "--max-body", "1") as running:
        yield running
        assert running.process.poll() is None
        assert not [line for line in running.errors if "Traceback" in line]


async def well_behaved(client: httpx.AsyncClient, others: "asyncio.Task[None]") -> int:
    """Ask one thing after another as long as the others do as they like; how many answers came."""
    answers = 0
    while not others.done() or answers < 2:
        await whole_answer(client, 40, stream=answers % 2 == 0)
        answers += 1
    return answers


def test_who_goes_away_disturbs_nobody_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scene(server: RealServer) -> None:
        async def guests() -> None:
            await asyncio.gather(*(leave(server.port, Random(seed)) for seed in range(GUESTS)))

        async with server.client() as client:
            others = asyncio.create_task(guests())
            await asyncio.gather(*(well_behaved(client, others) for _ in range(WELL_BEHAVED)))
            await others
            await all_free(client)
            await whole_answer(client, 8, stream=True)
            reasons = {entry["finish_reason"] for entry in (await client.get("/stats")).json()["history"]}
            assert reasons <= {"length", "cancelled"}

    with serving(tmp_path, "--queue", str(GUESTS)) as server:
        asyncio.run(scene(server))
        assert not [line for line in server.errors if "Traceback" in line]


def test_of_a_flood_the_rest_is_told_to_come_back_and_nothing_is_lost(server: RealServer) -> None:
    async def scene() -> None:
        async with server.client() as client:

            async def one(number: int) -> httpx.Response:
                return await client.post(STREAMED, json=wanted(60, stream=number % 2 == 0))

            answers = await asyncio.gather(*map(one, range(FLOOD)))
            told = Counter(answer.status_code for answer in answers)
            assert told.keys() == {200, 503}
            assert told[200] >= 64 + 4
            for answer in answers:
                if answer.status_code == 503:
                    assert int(answer.headers["retry-after"]) > 0
                    assert "waiting" in answer.json()["error"]["message"]
                elif answer.headers["content-type"].startswith("text/event-stream"):
                    assert answer.text.endswith("data: [DONE]\n\n")
                else:
                    assert answer.json()["usage"]["completion_tokens"] == 60
            await all_free(client)
            await whole_answer(client, 8, stream=False)

    asyncio.run(scene())


def test_slow_heads_and_huge_bodies_keep_nobody_waiting(server: RealServer) -> None:
    head, data = request_bytes(server.port, wanted(8))
    huge = head.replace(f"Length: {len(data)}\r\n".encode(), b"Length: 99999999999\r\n")

    async def scene() -> None:
        async with server.client() as client, asyncio.timeout(60):
            held = [connection(server.port, abort=True) for _ in range(100)]
            for each in held:
                _, writer = await each.__aenter__()
                writer.write(head[:30])
            for _ in range(20):
                async with connection(server.port, abort=False) as (reader, writer):
                    writer.write(huge)
                    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
            response = await client.post(STREAMED, content=b'{"prompt": "' + b"a" * (2 << 20))
            assert response.status_code == 413
            await whole_answer(client, 8, stream=True)
            for each in held:
                await each.__aexit__(None, None, None)
            await all_free(client)

    asyncio.run(scene())


@pytest.mark.parametrize("module", ["template_child", "vetting_child"])
def test_children_that_are_killed_come_back(server: RealServer, module: str) -> None:
    conversation = {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4,
        "temperature": 0,
        "chat_template_kwargs": {"enable_thinking": False},
    }

    async def scene() -> None:
        async with server.client() as client:
            for attempt in range(3):
                rule = {"grammar": f'root ::= "{"a" * (attempt + 1)}" # {module}'}
                for body in (conversation, conversation | rule):
                    response = await client.post("/v1/chat/completions", json=body)
                    if attempt and "that tries it" in response.text:  # taken for the grammar's doing
                        assert response.status_code == 400
                        response = await client.post("/v1/chat/completions", json=body)
                    assert response.status_code == 200, response.text
                assert response.json()["choices"][0]["message"]["content"] == "a" * (attempt + 1)
                server.kill_children(module)

    asyncio.run(scene())


@pytest.mark.skipif(os.name == "nt", reason="a process can't be sent these signals on Windows")
@pytest.mark.parametrize("drain", ["30", "0.1"])
def test_a_server_that_is_to_end_tells_everyone_so(tmp_path: Path, drain: str) -> None:
    tokens = 200 if drain == "30" else 7000

    async def scene(server: RealServer) -> list[httpx.Response]:
        async with server.client() as client:
            body = wanted(tokens, stream=True)
            asked = [asyncio.create_task(client.post(STREAMED, json=body)) for _ in range(6)]
            asked.append(asyncio.create_task(client.post(STREAMED, json=wanted(tokens))))
            await until_busy(client, 4)
            server.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*asked)

    with serving(tmp_path, "--drain", drain) as server:
        *streams, whole = asyncio.run(scene(server))
        assert server.ended() == 0
        assert not [line for line in server.errors if "Traceback" in line]
    for stream in streams:
        assert stream.status_code == 200
        last = stream.text.rstrip().rpartition("\n")[2]
        assert last == "data: [DONE]" if drain == "30" else "shutting down" in last
    assert whole.status_code == 200 if drain == "30" else 503


@pytest.mark.skipif(os.name == "nt", reason="a process can't be sent these signals on Windows")
def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    async def scene(server: RealServer) -> None:
        head, data = request_bytes(server.port, wanted(7000, stream=True))
        async with connection(server.port, abort=False) as (reader, writer):
            writer.write(head + data)
            await reader.readuntil(b"data: ")
            server.process.send_signal(signal.SIGTERM)
            until_refused(server.port)
            server.process.send_signal(signal.SIGTERM)
            await reader.read()

    with serving(tmp_path, "--drain", "3600") as server:
        asyncio.run(scene(server))
        assert server.ended() == 0


def test_a_log_that_nobody_reads_any_more_stops_nothing(tmp_path: Path) -> None:
    async def scene(server: RealServer) -> None:
        async with server.client() as client:
            for _ in range(3):
                await whole_answer(client, 4, stream=False)
            assert (await client.get("/health")).status_code == 200

    with serving(tmp_path) as server:
        server.stop_reading()
        asyncio.run(scene(server))
