"""`llamaspec serve` in a process of its own over a tiny model, and clients that misbehave."""

import asyncio
import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil
from gguf_files import tiny_llama

PATIENCE = 60.0  # seconds for what must happen: a test that fails, not one that is slow
CONTEXT = 8192
STREAMED = "/v1/completions"
_ROOT = Path(__file__).parents[2]


class RealServer:
    """A server that listens. `errors` are the lines that it has written since."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.errors: list[str] = []
        self.url = ""
        self._listens = threading.Event()
        self._hears = threading.Event()
        self._hears.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listens.wait(PATIENCE)
        assert self.url, self.errors
        self.port = int(self.url.rpartition(":")[2])

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.errors.append(line)
                if found := re.search(r"listening on (\S+)", line):
                    self.url = found[1]
                    self._listens.set()
                if not self._hears.is_set():
                    break
        self._listens.set()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, timeout=PATIENCE, limits=httpx.Limits(max_connections=None)
        )

    def kill_children(self, module: str) -> None:
        """Kill the processes that run a module for this one, of which there are some."""
        living = [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if child.status() != psutil.STATUS_ZOMBIE
        ]
        found = [child for child in living if any(module in word for word in child.cmdline())]
        assert found
        for child in found:
            child.kill()
            while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                pass

    def stop_reading(self) -> None:
        """Close this end of the pipe that it writes its log to, with the next line that comes."""
        self._hears.clear()

    def ended(self) -> int:
        """The exit status, when the process has come to its end and all that it wrote is read."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[RealServer]:
    """A pair whose draft is often right, 4 slots and a context of 8192 tokens between them."""
    main = tiny_llama(folder / "main.gguf", context=CONTEXT)
    draft = tiny_llama(folder / "draft.gguf", context=CONTEXT, noise=0.1)
    command = [sys.executable, "-m", "llamaspec", "serve", "-m", str(main), "-md", str(draft), "--port", "0"]
    command += ["-c", str(CONTEXT), "-t", "1", "--device", "cpu", "--draft-max", "4", *options]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONPATH": str(_ROOT), "LLAMASPEC_CACHE": str(folder / "cache")},
    ) as process:
        try:
            server = RealServer(process)
        except BaseException:
            process.kill()
            raise
        try:
            yield server
        finally:
            process.kill()
            server.ended()  # what reads from it has to end before its pipe is closed


def wanted(tokens: int, **more: Any) -> dict[str, Any]:
    """A body that asks for just so many tokens."""
    return {"prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "temperature": 0, **more}


async def whole_answer(client: httpx.AsyncClient, tokens: int, *, stream: bool) -> None:
    """Ask as a client should, and see that all of the answer comes."""
    body = wanted(tokens, stream=stream)
    if stream:
        body["stream_options"] = {"include_usage": True}
    response = await client.post(STREAMED, json=body)
    assert response.status_code == 200, response.text
    if stream:
        data = [
            line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")
        ]
        assert data.pop() == "[DONE]"
        chunks = [json.loads(each) for each in data]
        answer, choices = chunks[-1], [choice for chunk in chunks for choice in chunk["choices"]]
    else:
        answer = response.json()
        choices = answer["choices"]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]
    assert answer["usage"]["completion_tokens"] == tokens


async def all_free(client: httpx.AsyncClient) -> dict[str, Any]:
    """Wait until nothing runs or waits; what /stats then says."""
    async with asyncio.timeout(PATIENCE):
        while True:
            told = (await client.get("/stats")).json()
            slots = (await client.get("/slots")).json()
            if not any(slot["is_processing"] for slot in slots) and not told["queue"]["waiting"]:
                assert not any(slot["busy"] for slot in told["slots"])
                return dict(told)
            await asyncio.sleep(0.02)


async def until_busy(client: httpx.AsyncClient, slots: int) -> None:
    """Wait until so many slots are taken."""
    async with asyncio.timeout(PATIENCE):
        while sum(slot["is_processing"] for slot in (await client.get("/slots")).json()) < slots:
            await asyncio.sleep(0.02)


def request_bytes(port: int, body: Mapping[str, Any], path: str = STREAMED) -> tuple[bytes, bytes]:
    """Head and body of a POST as they go over the wire."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode(), data


@contextlib.asynccontextmanager
async def connection(
    port: int, *, abort: bool
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection. With `abort` it ends with a reset, and what has not been read is thrown away."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        if abort:
            bare = writer.get_extra_info("socket")
            bare.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            )
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def leave(port: int, chance: Random) -> None:
    """A client that goes away at some point of its request, or of the answer."""
    where = chance.choice(("head", "body", "asked", "stream", "silence"))
    head, data = request_bytes(port, wanted(4000, stream=where != "silence", seed=chance.randrange(1000)))
    sent = {
        "head": head[: chance.randrange(1, len(head))],
        "body": head + data[: chance.randrange(len(data))],
    }
    with contextlib.suppress(ConnectionError):
        async with connection(port, abort=chance.random() < 0.5) as (reader, writer):
            writer.write(sent.get(where, head + data))
            await writer.drain()
            if where == "stream":
                await reader.readexactly(chance.randrange(1, 2000))
            elif where == "silence":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(), chance.random() * 0.2)
