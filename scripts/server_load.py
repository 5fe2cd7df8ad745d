"""Clients of a chat server, over HTTP alone: how many ask it what, and when each piece of an answer came.

All times are seconds of `time.perf_counter` in this process. A gap is the time between two pieces of text
as they arrive; llamaspec and llama-server send a piece for each token, those of one round close together.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import cycle, islice, pairwise
from random import Random
from typing import Any, NamedTuple

import httpx
import numpy as np
from local_server import ServerFailed

from llamaspec.bench.workload import Prompt

_WAIT = httpx.Timeout(3600, connect=30)


class Task(NamedTuple):
    """What one request asks. `text` is the user's message, `limit` the most tokens of the answer, which
    with `whole` go on to the limit."""

    name: str
    text: str
    limit: int
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as it came: sent, the arrival of each piece of its text, and ended.

    `tokens` counts the one that ends the answer too, where the server does.
    """

    name: str
    sent: float
    arrivals: tuple[float, ...]
    ended: float
    prompt_tokens: int
    tokens: int
    drafted: int
    accepted: int
    finish: str

    @property
    def first_token_seconds(self) -> float | None:
        """From the request to the first text; None for an answer without any."""
        return self.arrivals[0] - self.sent if self.arrivals else None

    @property
    def gaps(self) -> list[float]:
        return gaps(self.arrivals)


@dataclass(slots=True)
class Stream:
    """An answer in the making: the lines of a stream of server-sent events."""

    name: str
    sent: float
    _arrivals: list[float] = field(default_factory=list)
    _usage: dict[str, Any] = field(default_factory=dict)
    _timings: dict[str, Any] = field(default_factory=dict)
    _finish: str | None = None
    _ended: float | None = None

    @property
    def pieces(self) -> int:
        return len(self._arrivals)

    def feed(self, line: str, now: float) -> None:
        """A line of the stream that came at `now`. Raises ServerFailed for an error told in it."""
        if not line.startswith("data:"):
            return
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            self._ended = now
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise ServerFailed(f"The answer to {self.name} ended with an error: {chunk['error']}")
        for choice in chunk["choices"]:
            if choice["delta"].get("content"):
                self._arrivals.append(now)
            self._finish = choice.get("finish_reason") or self._finish
        self._usage = chunk.get("usage") or self._usage
        self._timings = chunk.get("timings") or self._timings

    def answer(self) -> Answer:
        """The whole of it. Raises ServerFailed where the stream broke off."""
        if self._ended is None or self._finish is None or not self._usage:
            raise ServerFailed(f"The answer to {self.name} broke off after {self.pieces} pieces.")
        return Answer(
            name=self.name,
            sent=self.sent,
            arrivals=tuple(self._arrivals),
            ended=self._ended,
            prompt_tokens=self._usage["prompt_tokens"],
            tokens=self._usage["completion_tokens"],
            drafted=self._timings.get("draft_n", 0),
            accepted=self._timings.get("draft_n_accepted", 0),
            finish=self._finish,
        )


@dataclass(frozen=True, slots=True)
class Stall:
    """A stream alone (`quiet`), and one during which a long prompt came (`disturbed`, `long`)."""

    quiet: Answer
    disturbed: Answer
    long: Answer
    lead: int

    @property
    def quiet_gaps(self) -> list[float]:
        """Those behind the first `lead` pieces, where the other stream is disturbed."""
        return gaps(self.quiet.arrivals[self.lead - 1 :])

    @property
    def disturbed_gaps(self) -> list[float]:
        """Those of which a part lies between the long prompt's request and its first token."""
        return gaps_within(self.disturbed.arrivals, self.long.sent, self._read)

    @property
    def covered(self) -> bool:
        """Whether the stream went on until the long prompt had been read."""
        return bool(self.disturbed.arrivals) and self.disturbed.arrivals[-1] >= self._read

    @property
    def _read(self) -> float:
        return self.long.arrivals[0] if self.long.arrivals else self.long.ended


def gaps(arrivals: Iterable[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(arrivals)]


def gaps_within(arrivals: Sequence[float], start: float, end: float) -> list[float]:
    """The gaps, whole, of which a part lies between `start` and `end`."""
    return [later - earlier for earlier, later in pairwise(arrivals) if later > start and earlier < end]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Interpolated between the two nearest; None where there are no values."""
    return float(np.percentile(values, percent)) if values else None


def marked(text: str, chance: Random) -> str:
    """`text` behind a first line of its own, so that no cache of an earlier request knows more than that."""
    return f"Request {chance.getrandbits(32):08x}.\n\n{text}"


def tasks(prompts: Sequence[Prompt], clients: int, n_predict: int, chance: Random) -> list[Task]:
    """Each prompt once, and from the first again where there are more clients than prompts."""
    count = max(len(prompts), clients)
    return [
        Task(prompt.name, marked(prompt.prompt, chance), prompt.limit(n_predict))
        for prompt in islice(cycle(prompts), count)
    ]


def dealt(every: Sequence[Task], clients: int) -> list[Sequence[Task]]:
    """What each client asks, one after the other: the tasks in turn."""
    return [every[client::clients] for client in range(clients)]


def long_text(prompts: Sequence[Prompt], characters: int) -> str:
    """So much of the workload's texts, over and over, and a request that fits them all."""
    every = "\n\n".join(prompt.prompt for prompt in prompts) + "\n\n"
    return (every * (characters // len(every) + 1))[:characters] + "\n\nName the topics of these texts."


async def ask(
    http: httpx.AsyncClient, task: Task, heard: Callable[[int], None] = lambda pieces: None
) -> Answer:
    """One greedy answer, streamed. `heard` is told, after each line, how many pieces have come.

    Raises ServerFailed for a refusal and for an answer that breaks off; httpx.HTTPError.
    """
    body = {
        "messages": [{"role": "user", "content": task.text}],
        "temperature": 0.0,
        "max_tokens": task.limit,
        "ignore_eos": task.whole,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    stream = Stream(task.name, time.perf_counter())
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != HTTPStatus.OK:
            text = (await response.aread()).decode("utf-8", "replace")
            raise ServerFailed(f"The request {task.name} was answered {response.status_code}: {text[:500]}")
        async for line in response.aiter_lines():
            stream.feed(line, time.perf_counter())
            heard(stream.pieces)
    return stream.answer()


async def load(http: httpx.AsyncClient, share: Sequence[Sequence[Task]]) -> list[Answer]:
    """All answers of as many clients as there are shares, each asking one task after the other."""

    async def client(own: Sequence[Task]) -> list[Answer]:
        return [await ask(http, task) for task in own]

    every = await asyncio.gather(*(client(own) for own in share))
    return [answer for answers in every for answer in answers]


async def stall(http: httpx.AsyncClient, quiet: Task, disturbed: Task, long: Task, lead: int) -> Stall:
    """Stream `quiet` alone; then `disturbed`, with `long` as soon as `lead` of its pieces are here."""
    alone = await ask(http, quiet)
    under_way = asyncio.Event()

    def heard(pieces: int) -> None:
        if pieces >= lead:
            under_way.set()

    async def stream() -> Answer:
        try:
            return await ask(http, disturbed, heard)
        finally:
            under_way.set()

    async def intrude() -> Answer:
        await under_way.wait()
        return await ask(http, long)

    streamed, read = await asyncio.gather(stream(), intrude())
    return Stall(alone, streamed, read, lead)


async def count_tokens(http: httpx.AsyncClient, text: str) -> int:
    """Raises httpx.HTTPError."""
    response = await http.post("/tokenize", json={"content": text})
    return len(response.raise_for_status().json()["tokens"])


def client_of(url: str) -> httpx.AsyncClient:
    """A connection for each request, and no proxy of the environment between.

    A connection that is kept may be closed by the server just when the next request is sent.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=url, timeout=_WAIT, limits=limits, trust_env=False)
