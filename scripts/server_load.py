"""Clients of a chat server, over HTTP alone: how many ask it what, and when each piece of an answer came.

All times are seconds of `time.perf_counter` in this process. A gap is the time between two pieces of text
as they arrive; llamaspec and llama-server send a piece for each token, those of one round close together.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from random import Random

import httpx
import numpy as np

from llamaspec.bench.streaming import GREEDY, Answer, Asking, Task, ask, gaps, marked
from llamaspec.bench.workload import Prompt

ENDLESS = Asking(
    extras={
        **GREEDY,
        **{"temperature": 0.8, "seed": 1, "ignore_eos": True},
        **{"repeat_penalty": 1.2, "repeat_last_n": 512},
    }
)
"""An answer goes on to its limit; sampled, and with repeats made unlikely, or it would fall into loops."""


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


def gaps_within(arrivals: Sequence[float], start: float, end: float) -> list[float]:
    """The gaps, whole, of which a part lies between `start` and `end`."""
    return [later - earlier for earlier, later in pairwise(arrivals) if later > start and earlier < end]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Interpolated between the two nearest; None where there are no values."""
    return float(np.percentile(values, percent)) if values else None


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


async def load(http: httpx.AsyncClient, share: Sequence[Sequence[Task]]) -> list[Answer]:
    """All answers of as many clients as there are shares, each asking one task after the other."""

    async def client(own: Sequence[Task]) -> list[Answer]:
        return [await ask(http, task) for task in own]

    every = await asyncio.gather(*(client(own) for own in share))
    return [answer for answers in every for answer in answers]


async def stall(http: httpx.AsyncClient, quiet: Task, disturbed: Task, long: Task, lead: int) -> Stall:
    """Stream `quiet` alone; then `disturbed`, with `long` as soon as `lead` of its pieces are here."""
    alone = await ask(http, quiet, ENDLESS)
    under_way = asyncio.Event()

    def heard(pieces: int) -> None:
        if pieces >= lead:
            under_way.set()

    async def stream() -> Answer:
        try:
            return await ask(http, disturbed, ENDLESS, heard=heard)
        finally:
            under_way.set()

    async def intrude() -> Answer:
        await under_way.wait()
        return await ask(http, long)

    streamed, read = await asyncio.gather(stream(), intrude())
    return Stall(alone, streamed, read, lead)


async def count_tokens(http: httpx.AsyncClient, text: str) -> int:
    """Raises httpx.HTTPError."""
    # Not below /v1, as the rest.
    response = await http.post(http.base_url.copy_with(path="/tokenize"), json={"content": text})
    return len(response.raise_for_status().json()["tokens"])
