"""Clients of a chat server, over HTTP alone: what is asked, and when each piece of an answer came.

Any server that speaks OpenAI's chat completions will do. All times are seconds of `time.perf_counter` in
this process. A piece is a delta with text, which may hold several tokens.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import pairwise
from random import Random
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import httpx
from httpx_sse import SSEError, aconnect_sse
from pydantic import BaseModel, Field, ValidationError

from llamaspec.errors import ServerError

MAX_ANSWER_BYTES = 64 << 20
LONGEST_ANSWER = 3600.0
_CONNECT_SECONDS = 10.0
_REFUSAL_BYTES = 1 << 16
_SHOWN = 400

CountedBy = Literal["usage", "timings", "pieces"]
"""Who counted the tokens: the server's `usage` or `timings`, or nobody, and pieces stand for them."""

GREEDY: Mapping[str, Any] = MappingProxyType(
    {"temperature": 0.0, "seed": 0, "stream_options": {"include_usage": True}}
)


class AnswerFailed(ServerError):
    """No answer, or half of one. `kind` groups such failures, `status` is that of a refusal."""

    def __init__(self, kind: str, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status


class Task(NamedTuple):
    """What one request asks. `text` is the user's message, `limit` the most tokens of the answer."""

    name: str
    text: str
    limit: int


@dataclass(frozen=True, slots=True)
class Asking:
    """How a server wants to be asked: what stands in a request beside the message."""

    model: str | None = None
    limit: str = "max_tokens"
    extras: Mapping[str, Any] = field(default_factory=lambda: GREEDY)

    def body(self, task: Task) -> dict[str, Any]:
        named = {} if self.model is None else {"model": self.model}
        messages = [{"role": "user", "content": task.text}]
        return {**named, "messages": messages, self.limit: task.limit, "stream": True, **self.extras}


ANY_MODEL = Asking()
"""For servers of one model, which need not be told its name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as it came: sent, the arrival of each piece of its text, and ended.

    `tokens` counts the one that ends the answer too, where the server does. What the server does not tell
    is None.
    """

    name: str
    sent: float
    arrivals: tuple[float, ...]
    ended: float
    prompt_tokens: int | None
    tokens: int
    drafted: int | None
    accepted: int | None
    finish: str | None
    cached_tokens: int | None = None
    counted_by: CountedBy = "usage"

    @property
    def first_token_seconds(self) -> float | None:
        """From the request to the first text; None for an answer without any."""
        return self.arrivals[0] - self.sent if self.arrivals else None

    @property
    def gaps(self) -> list[float]:
        return gaps(self.arrivals)


_Count = Annotated[int, Field(ge=0, le=1 << 60)]


class _Delta(BaseModel):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None

    @property
    def has_text(self) -> bool:
        return bool(self.content or self.reasoning_content or self.reasoning)


class _Choice(BaseModel):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Cached(BaseModel):
    cached_tokens: _Count | None = None


class _Usage(BaseModel):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    prompt_tokens_details: _Cached | None = None


class _Timings(BaseModel):
    prompt_n: _Count | None = None
    cache_n: _Count | None = None
    predicted_n: _Count | None = None
    draft_n: _Count = 0
    draft_n_accepted: _Count = 0


class _Chunk(BaseModel):
    """A part of a streamed answer, as far as it is used here."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: Any = None


@dataclass(slots=True)
class Stream:
    """An answer in the making: the data of server-sent events."""

    name: str
    sent: float
    _arrivals: list[float] = field(default_factory=list)
    _usage: _Usage = field(default_factory=_Usage)
    _timings: _Timings | None = None
    _finish: str | None = None
    _ended: float | None = None

    @property
    def pieces(self) -> int:
        return len(self._arrivals)

    def feed(self, data: str, now: float) -> None:
        """The data of an event that came at `now`. Raises AnswerFailed for an error told in it."""
        if data == "[DONE]":
            self._ended = now
            return
        try:
            chunk = _Chunk.model_validate_json(data)
        except ValidationError as error:
            wrong = error.errors()[0]["msg"]
            raise AnswerFailed("not understood", f"An event is no chat completion: {wrong}.") from None
        if chunk.error:
            raise AnswerFailed("error in the stream", f"The answer ended with an error: {_told(chunk.error)}")
        for choice in chunk.choices or ():
            if choice.delta.has_text:
                self._arrivals.append(now)
            if choice.finish_reason:
                self._finish, self._ended = choice.finish_reason, now
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings

    def answer(self) -> Answer:
        """The whole of it. Raises AnswerFailed where the stream broke off."""
        if self._ended is None:
            raise AnswerFailed("broken off", f"The answer broke off after {self.pieces} pieces.")
        tokens, counted_by = self._tokens()
        usage, timings = self._usage, self._timings or _Timings()
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
        evaluated = None if timings.prompt_n is None else timings.prompt_n + (timings.cache_n or 0)
        return Answer(
            name=self.name,
            sent=self.sent,
            arrivals=tuple(self._arrivals),
            ended=self._ended,
            prompt_tokens=evaluated if usage.prompt_tokens is None else usage.prompt_tokens,
            tokens=tokens,
            drafted=timings.draft_n if self._timings else None,
            accepted=timings.draft_n_accepted if self._timings else None,
            finish=self._finish,
            cached_tokens=timings.cache_n if cached is None else cached,
            counted_by=counted_by,
        )

    def _tokens(self) -> tuple[int, CountedBy]:
        if self._usage.completion_tokens is not None:
            return self._usage.completion_tokens, "usage"
        if self._timings is not None and self._timings.predicted_n is not None:
            return self._timings.predicted_n, "timings"
        return self.pieces, "pieces"


def gaps(arrivals: Iterable[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(arrivals)]


def marked(text: str, chance: Random) -> str:
    """`text` behind a first line of its own, so that no cache of an earlier request knows more than that."""
    return f"Request {chance.getrandbits(32):08x}.\n\n{text}"


def client_of(url: str, *, api_key: str | None = None, trust_env: bool = False) -> httpx.AsyncClient:
    """A client of the API below `url`. `trust_env`: the environment may name proxies and certificates.

    Each request has a connection of its own: servers close kept ones just when the next request is sent.
    """
    return httpx.AsyncClient(
        base_url=url,
        headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
        timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=trust_env,
    )


async def ask(
    http: httpx.AsyncClient,
    task: Task,
    asking: Asking = ANY_MODEL,
    *,
    timeout: float = LONGEST_ANSWER,
    heard: Callable[[int], None] = lambda pieces: None,
) -> Answer:
    """One answer, streamed, that takes at most `timeout` seconds.

    `heard` is told, after each event, how many pieces have come. Raises AnswerFailed.
    """
    stream = Stream(task.name, time.perf_counter())
    with translated(timeout):
        async with (
            asyncio.timeout(timeout),
            aconnect_sse(http, "POST", "chat/completions", json=asking.body(task)) as events,
        ):
            await check_status(events.response)
            async for event in events.aiter_sse():
                stream.feed(event.data, time.perf_counter())
                heard(stream.pieces)
                if events.response.num_bytes_downloaded > MAX_ANSWER_BYTES:
                    raise AnswerFailed("too long", f"The answer went on for {MAX_ANSWER_BYTES >> 20} MiB.")
    return stream.answer()


@contextmanager
def translated(timeout: float) -> Iterator[None]:
    """Errors of the network and of streams as AnswerFailed."""
    try:
        yield
    except TimeoutError:
        raise AnswerFailed("timeout", f"There was no end after {timeout:g} seconds.") from None
    except SSEError:
        raise AnswerFailed("no stream", "The answer is no stream of events.") from None
    except (httpx.ConnectError, httpx.ConnectTimeout, UnicodeError) as error:  # the last: a host's name
        raise AnswerFailed("unreachable", f"The server can't be reached: {one_line(error)}") from None
    except httpx.HTTPError as error:
        raise AnswerFailed("broken off", f"The connection broke: {one_line(error)}") from None


async def check_status(response: httpx.Response) -> None:
    """Raises AnswerFailed for anything but 200, with what the server says to it."""
    status = response.status_code
    if status == HTTPStatus.OK:
        return
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _REFUSAL_BYTES:
            break
    told = reason(bytes(body)) or response.reason_phrase
    raise AnswerFailed(f"HTTP {status}", f"The server answered {status}: {told}", status=status)


def reason(body: bytes) -> str:
    """What an answer that is an error says, in one line."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        if isinstance(found, dict):
            return _told(found.get("error") or found.get("detail") or found.get("message") or text)
    return one_line(text)


def one_line(text: object) -> str:
    """`text` without line breaks and what a terminal might obey, and not too long; of an error its name."""
    shown = str(text) or type(text).__name__
    cleaned = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(shown.split()))
    return cleaned if len(cleaned) <= _SHOWN else f"{cleaned[:_SHOWN]}…"


def _told(error: object) -> str:
    return one_line(error["message"] if isinstance(error, dict) and error.get("message") else error)
