#!/usr/bin/env python3
"""Soak `llamaspec serve`: clients that behave and clients that don't, for minutes, with its memory watched.

    scripts/soak_server.py -m main.gguf -md draft.gguf --minutes 10

Half of the clients ask and read to the end; the other half leave at random points, send nonsense, or ask
for what is refused. In the end every answer that was due must have come whole, no answer may have had
another status than 200, 400, 413 or 503, all slots must be free, and the memory of the server and its
children must not have grown by more than `--growth` MiB from the first third of the time to the last.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil

from llamaspec.bench.local_server import LocalServer

_EVERY_SECONDS = 1.0
_PATIENCE = 300.0
_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"
_ALLOWED = frozenset({200, 400, 413, 503})
_WORDS = (
    "river",
    "engine",
    "morning",
    "letter",
    "glass",
    "harbour",
    "winter",
    "question",
    "garden",
    "signal",
)
_MALFORMED: tuple[bytes, ...] = (
    b"",
    b"[" * 50_000,
    b'{"messages": [{"role": "user", "content": "\xff"}]}',
    b'{"messages": [], "temperature": NaN}',
    json.dumps({"prompt": "a", "grammar": "root ::= " + "(" * 20_000}).encode(),
    json.dumps({"prompt": "a", "json_schema": {"$ref": "#"}}).encode(),
    json.dumps({"prompt": "a", "logit_bias": dict.fromkeys(map(str, range(5000)), 1)}).encode(),
    json.dumps({"prompt": "word " * 200_000}).encode(),
    b"a" * (20 << 20),
)


@dataclass
class Findings:
    """What came of it. `memory` has seconds since the start and MiB of the server and its children."""

    statuses: Counter[int] = field(default_factory=Counter)
    answers: int = 0
    left: int = 0
    faults: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)

    def growth(self) -> float:
        """MiB from the median of the first third to that of the last; the start is warming up."""
        sizes = [size for _, size in self.memory[len(self.memory) // 10 :]]
        third = max(1, len(sizes) // 3)
        return statistics.median(sizes[-third:]) - statistics.median(sizes[:third])


class Soak:
    """The clients. Each has its own random numbers; they stop asking at `end` (of `time.monotonic`)."""

    def __init__(
        self, server: LocalServer, http: httpx.AsyncClient, rude: httpx.AsyncClient, end: float, tokens: int
    ) -> None:
        self.found = Findings()
        self._server = server
        self._http = http
        self._rude = rude
        self._end = end
        self._tokens = tokens

    async def run(self, clients: int, seed: int) -> Findings:
        """Half of the clients of either kind, and one that watches."""
        chances = [Random(seed + number) for number in range(clients)]
        kinds = (self._behave, self._misbehave)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            for number, chance in enumerate(chances):
                group.create_task(kinds[number % 2](chance))
        await self._all_free()
        return self.found

    async def _behave(self, chance: Random) -> None:
        while time.monotonic() < self._end:
            body = self._body(chance)
            path = _CHAT if "messages" in body else _TEXT
            try:
                response = await self._http.post(path, json=body)
            except httpx.HTTPError as error:
                self.found.faults.append(f"a sound request got no answer: {error!r}")
                return
            self._count(response)
            if response.status_code == 503:
                await asyncio.sleep(float(response.headers["retry-after"]) * chance.random())
            elif response.status_code != 200 or not _is_whole(response, body["stream"]):
                self.found.faults.append(
                    f"a sound request got {response.status_code}: {response.text[-200:]}"
                )
            else:
                self.found.answers += 1

    async def _misbehave(self, chance: Random) -> None:
        while time.monotonic() < self._end:
            if chance.random() < 0.4:
                path = chance.choice((_CHAT, _TEXT, "/completion", "/tokenize"))
                content, kind = chance.choice(_MALFORMED), {"Content-Type": "application/json"}
                with contextlib.suppress(httpx.NetworkError):  # it closes where the body is too large
                    self._count(await self._rude.post(path, content=content, headers=kind))
            else:
                await self._leave(chance)
            await asyncio.sleep(0.05 * chance.random())

    async def _leave(self, chance: Random) -> None:
        body = self._body(chance)
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(chance.random()),
                self._rude.stream("POST", _CHAT if "messages" in body else _TEXT, json=body) as response,
            ):
                async for _ in response.aiter_raw():
                    if chance.random() < 0.1:
                        break
        self.found.left += 1

    def _body(self, chance: Random) -> dict[str, Any]:
        text = f"Tell of {' and '.join(chance.sample(_WORDS, 3))}."
        asked = (
            {"messages": [{"role": "user", "content": text}]} if chance.random() < 0.6 else {"prompt": text}
        )
        body: dict[str, Any] = {
            **asked,
            "max_tokens": chance.randrange(1, self._tokens + 1),
            "stream": chance.random() < 0.7,
            "temperature": chance.choice((0, 0.8)),
        }
        extras: tuple[dict[str, Any], ...] = (
            {"n": 2},
            {"json_schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
            {"grammar": f'root ::= "{chance.choice(_WORDS)}" [a-z ]*'},
            {"token_details": True},
            {"speculative": {"mode": "off"}},
            {"logit_bias": {str(chance.randrange(200)): -100}},
        )
        return body | (chance.choice(extras) if chance.random() < 0.5 else {})

    def _count(self, response: httpx.Response) -> None:
        self.found.statuses[response.status_code] += 1
        if response.status_code not in _ALLOWED:
            self.found.faults.append(
                f"{response.request.url.path}: {response.status_code} {response.text[:200]}"
            )

    async def _watch(self) -> None:
        start = time.monotonic()
        process = psutil.Process(self._server.pid)
        while time.monotonic() < self._end:
            with contextlib.suppress(psutil.NoSuchProcess):  # a child that is just being replaced
                family = [process, *process.children(recursive=True)]
                size = sum(each.memory_info().rss for each in family) / (1 << 20)
                self.found.memory.append((time.monotonic() - start, size))
            await asyncio.sleep(_EVERY_SECONDS)

    async def _all_free(self) -> None:
        """Wait until nothing runs or waits, as it must soon when nobody asks any more."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                told = (await self._http.get("/stats")).json()
                if not told["queue"]["waiting"] and not any(slot["busy"] for slot in told["slots"]):
                    return
                await asyncio.sleep(0.1)


def _is_whole(response: httpx.Response, stream: bool) -> bool:
    if stream:
        return response.text.endswith("data: [DONE]\n\n") and '"error":' not in response.text
    return all(choice["finish_reason"] in ("stop", "length") for choice in response.json()["choices"])


async def soak(server: LocalServer, options: argparse.Namespace) -> Findings:
    async with _client(server) as http, _client(server) as rude:
        end = time.monotonic() + 60.0 * options.minutes
        return await Soak(server, http, rude, end, options.tokens).run(options.clients, options.seed)


def _client(server: LocalServer) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=server.url, timeout=_PATIENCE, limits=limits)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-md", "--model-draft", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=12, help="half of them misbehave")
    parser.add_argument("--tokens", type=int, default=48, help="most tokens of an answer")
    parser.add_argument("--growth", type=float, default=64.0, help="MiB that the memory may grow by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("serve", nargs="*", help="more flags of llamaspec serve, after --")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    command = [sys.executable, "-m", "llamaspec", "serve", "-m", str(options.model)]
    if options.model_draft:
        command += ["-md", str(options.model_draft)]
    with LocalServer("llamaspec", [*command, *options.serve], os.environ) as server:
        found = asyncio.run(soak(server, options))
        for fault in found.faults:
            print(server.failure(f"FAULT {fault}"))
    growth, sizes = found.growth(), [size for _, size in found.memory]
    print(f"{found.answers} answers, {found.left} clients that left, by status: {dict(found.statuses)}")
    print(f"memory: {min(sizes):.0f} to {max(sizes):.0f} MiB, {growth:+.1f} from the first third to the last")
    if growth > options.growth:
        print(f"FAULT memory grew by more than {options.growth:.0f} MiB")
    return 1 if found.faults or growth > options.growth or not found.answers else 0


if __name__ == "__main__":
    sys.exit(main())
