"""A server measured from outside: any that speaks OpenAI's chat completions, at several numbers of clients.

At each level so many clients work through the prompts, each asking one after the other and reading its
stream. Levels take turns: a round has all of them, and each round begins with the next one, so that a
machine which gets slower hits all alike. Before, short requests find out what the server takes, and warm it.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from itertools import count, cycle, islice
from random import Random
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError

import llamaspec
from llamaspec.bench.paired import WARM_UP, rotated
from llamaspec.bench.remote_levels import findings, is_noisy, levels, so_many_clients
from llamaspec.bench.remote_report import RequestRecord, ServerReport
from llamaspec.bench.report import Finding
from llamaspec.bench.streaming import (
    Answer,
    AnswerFailed,
    Asking,
    Task,
    ask,
    check_status,
    client_of,
    marked,
    one_line,
    translated,
)
from llamaspec.bench.workload import Workload
from llamaspec.errors import ServerError, UsageError
from llamaspec.provenance import WorkRecord
from llamaspec.settings import MAX_CONTEXT

MOST_CLIENTS = 1024
_WARM_UP = Task("warm-up", WARM_UP, 8)
_LIST_SECONDS = 30.0
_MODELS_SHOWN = 10
_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
_LIMIT, _NEWER_LIMIT = "max_tokens", "max_completion_tokens"
_FRESH = (
    "Each request began with a line of its own: no cache knew more of it than what a template puts before."
)
_AS_THEY_ARE = "Prompts were sent as they are: a cache of the server may have known them."
_EFFECTS = {
    "temperature": "answers are sampled as the server likes",
    "seed": "answers may differ from run to run",
    "stream_options": "the server need not say how many tokens there are",
}

Progress = Callable[[int, int, str], None]
"""Told after each request: how many have ended, of how many, and what is being measured."""


def measure_server(
    url: str,
    work: Workload,
    *,
    model: str | None = None,
    api_key: str | None = None,
    concurrency: Sequence[int] = (1, 4),
    n_predict: int = 128,
    repeat: int = 1,
    name: str | None = None,
    unique: bool = True,
    timeout: float = 600.0,
    on_progress: Progress = lambda done, total, what: None,
) -> ServerReport:
    """Measure the server below `url`, as `http://127.0.0.1:8080/v1`; `/v1` is added where there is no path.

    `name` is that of the work in the report. `unique` gives every request a first line of its own, so that
    no prompt cache knows it. A request that takes more than `timeout` seconds counts as failed; so do
    refusals and broken streams. Ctrl-C ends the measurement with the levels that were measured; before the
    first of them is through it is raised.

    Raises UsageError for impossible wishes and ServerError for a server that can't be reached, has no model,
    wants a key, or does not answer: both before anything is measured.
    """
    api = api_url(url)
    _check(api_key, concurrency, n_predict, repeat, timeout)
    load = _Load(
        url=api,
        api_key=api_key,
        work=work,
        name=name or one_line(work.description or "workload"),
        levels=tuple(concurrency),
        n_predict=n_predict,
        repeat=repeat,
        unique=unique,
        timeout=timeout,
        on_progress=on_progress,
    )
    met = asyncio.run(_meet(load, model))
    started = datetime.now(UTC).isoformat(timespec="seconds")
    requests: list[RequestRecord] = []
    interrupted = False
    try:
        asyncio.run(_measure(load, met.asking, requests))
    except KeyboardInterrupt:
        if not requests:
            raise
        interrupted = True
    return _report(load, met, started, requests, interrupted=interrupted)


def api_url(url: str) -> str:
    """The address of an API as it is used and reported. Raises UsageError for what is none."""
    like = "Give one like http://127.0.0.1:8080/v1."
    try:
        parsed = httpx.URL(url.strip())
        has_host = bool(parsed.host)
    except (httpx.InvalidURL, UnicodeError):
        raise UsageError(f"{one_line(url)!r} is no address of a server.", like) from None
    port_is_one = parsed.port is None or 0 < parsed.port < 1 << 16
    if parsed.scheme not in ("http", "https") or not has_host or not port_is_one or len(url.split()) > 1:
        raise UsageError(f"{one_line(url)!r} is no address of a server.", like)
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise UsageError(
            "The address of a server holds a name, a key or a query.", "Use --api-key for a key."
        )
    path = parsed.path.rstrip("/")
    if path.endswith(("/completions", "/models")):
        raise UsageError(f"{one_line(url)!r} is one endpoint of a server.", "Give its address up to /v1.")
    return str(parsed.copy_with(path=path or "/v1"))


@dataclass(frozen=True, slots=True)
class _Load:
    """What is asked of which server."""

    url: str
    api_key: str | None
    work: Workload
    name: str
    levels: tuple[int, ...]
    n_predict: int
    repeat: int
    unique: bool
    timeout: float
    on_progress: Progress

    def client(self) -> httpx.AsyncClient:
        return client_of(self.url, api_key=self.api_key, trust_env=not _is_here(httpx.URL(self.url).host))

    def count(self, clients: int) -> int:
        """Requests of a level in a round: each prompt once, and from the first again for more clients."""
        return max(len(self.work.prompts), clients)

    def tasks(self, clients: int, chance: Random) -> list[Task]:
        return [
            Task(
                prompt.name,
                marked(prompt.prompt, chance) if self.unique else prompt.prompt,
                prompt.limit(self.n_predict),
            )
            for prompt in islice(cycle(self.work.prompts), self.count(clients))
        ]


@dataclass(frozen=True, slots=True)
class _Met:
    """What a server has said of itself, how it wants to be asked, and what there is to say about that."""

    server: str
    asking: Asking
    notes: tuple[str, ...]


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


def _check(
    api_key: str | None, concurrency: Sequence[int], n_predict: int, repeat: int, timeout: float
) -> None:
    if not concurrency or not all(1 <= clients <= MOST_CLIENTS for clients in concurrency):
        raise UsageError(f"The numbers of clients are each from 1 to {MOST_CLIENTS}.")
    if len(set(concurrency)) < len(concurrency):
        raise UsageError("A number of clients is named twice.", "Use --repeat to measure more often.")
    if not 1 <= n_predict <= MAX_CONTEXT:
        raise UsageError(f"From 1 to {MAX_CONTEXT} tokens can be predicted, not {n_predict}.")
    if repeat < 1:
        raise UsageError(f"At least one round is needed, not {repeat}.")
    if not timeout > 0:
        raise UsageError("The longest wait for an answer must be above 0 seconds.")
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
        raise UsageError("The API key is none: it is empty or has characters that no key has.")


def _is_here(host: str) -> bool:
    """Whether a host is this machine, to which no proxy leads."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


async def _meet(load: _Load, model: str | None) -> _Met:
    """Find out what the server has and takes, which also warms it. Raises UsageError and ServerError."""
    try:
        async with load.client() as http:
            server, there = await _models(http)
            asking = Asking(_chosen(model, there))
            return await _agree(http, load, _Met(server, asking, ()))
    except AnswerFailed as error:
        hint = "Is it running, and is the address right?"
        if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            hint = "Give its key with --api-key or in the environment as LLAMASPEC_API_KEY."
        raise ServerError(f"{load.url}: {error.message}", hint) from None


async def _models(http: httpx.AsyncClient) -> tuple[str, list[str] | None]:
    """The server's name for itself and its models; None where it does not list them."""
    with translated(_LIST_SECONDS):
        async with asyncio.timeout(_LIST_SECONDS):
            response = await http.get("models")
    named = response.headers.get("server")
    server = one_line(named) if named else ""
    if response.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        return server, None
    await check_status(response)
    try:
        listed = _Models.model_validate_json(response.content)
    except ValidationError:
        raise AnswerFailed(
            "not understood", "There is no OpenAI-compatible API: /models lists none."
        ) from None
    return server, [each.id for each in listed.data]


def _chosen(model: str | None, there: Sequence[str] | None) -> str:
    """A model that was named need not be listed: the server knows whether it has it."""
    if model is not None:
        return model
    if there is None:
        raise UsageError("The server does not list its models.", "Name one with --model-name.")
    if not there:
        raise ServerError("The server has no model.", "Load one there first.")
    if len(there) > 1:
        shown = ", ".join(map(one_line, there[:_MODELS_SHOWN])) + (", …" if there[_MODELS_SHOWN:] else "")
        raise UsageError(f"The server has several models: {shown}.", "Choose one with --model-name.")
    return there[0]


async def _agree(http: httpx.AsyncClient, load: _Load, met: _Met) -> _Met:
    """Leave out of a request what the server refuses, until it answers. Raises AnswerFailed."""
    first: AnswerFailed | None = None
    while True:
        try:
            await ask(http, _WARM_UP, met.asking, timeout=load.timeout)
        except AnswerFailed as error:
            first = first or error
            simpler = _simpler(met, error.message) if error.status in _REFUSED else None
            if simpler is None:
                raise first from None
            met = simpler
        else:
            return met


def _simpler(met: _Met, refusal: str) -> _Met | None:
    """Without what a refusal names; where it names nothing, without all that need not be; at last None."""
    asking = met.asking
    dropped = [name for name in asking.extras if name in refusal] or list(asking.extras)
    if asking.limit == _LIMIT and (_LIMIT in refusal or not dropped):
        return replace(met, asking=replace(asking, limit=_NEWER_LIMIT))
    if not dropped:
        return None
    kept = {name: value for name, value in asking.extras.items() if name not in dropped}
    notes = [f"The server does not take {name}: {_EFFECTS[name]}." for name in dropped]
    return replace(met, asking=replace(asking, extras=kept), notes=(*met.notes, *notes))


async def _measure(load: _Load, asking: Asking, requests: list[RequestRecord]) -> None:
    """All rounds into `requests`, each level when it is through; ends behind one of failures alone."""
    chance = Random()
    async with load.client() as http:
        most = max(load.levels)
        await _level(http, load, asking, [_WARM_UP] * most, _Turn(most, 0, lambda: None))
        ended, total = count(1), load.repeat * sum(map(load.count, load.levels))
        for number in range(load.repeat):
            for clients in rotated(load.levels, number):
                told = partial(_tell, load.on_progress, ended, total, so_many_clients(clients))
                tasks = load.tasks(clients, chance)
                of_level = await _level(http, load, asking, tasks, _Turn(clients, number, told))
                requests += of_level
                if all(record.failure is not None for record in of_level):
                    return


def _tell(on_progress: Progress, ended: Iterator[int], total: int, what: str) -> None:
    on_progress(next(ended), total, what)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A level in a round; `ended` is called after each of its requests."""

    clients: int
    round: int
    ended: Callable[[], None]


async def _level(
    http: httpx.AsyncClient, load: _Load, asking: Asking, tasks: Sequence[Task], turn: _Turn
) -> list[RequestRecord]:
    """The tasks, as many at a time as there are clients: whoever is done takes the next one."""
    pending, records = iter(tasks), list[RequestRecord]()
    began = time.perf_counter()

    async def client() -> None:
        for task in pending:
            sent = time.perf_counter()
            try:
                outcome: Answer | AnswerFailed = await ask(http, task, asking, timeout=load.timeout)
            except AnswerFailed as error:
                outcome = error
            records.append(_record(outcome, task.name, turn, sent - began, time.perf_counter() - sent))
            turn.ended()

    async with asyncio.TaskGroup() as group:
        for _ in range(turn.clients):
            group.create_task(client())
    return records


def _record(
    outcome: Answer | AnswerFailed, prompt: str, turn: _Turn, sent: float, seconds: float
) -> RequestRecord:
    about: dict[str, Any] = {"prompt": prompt, "clients": turn.clients, "round": turn.round, "sent": sent}
    if isinstance(outcome, AnswerFailed):
        return RequestRecord(**about, seconds=seconds, failure=outcome.kind, message=outcome.message)
    return RequestRecord(
        **about,
        seconds=outcome.ended - outcome.sent,
        times=tuple(arrival - outcome.sent for arrival in outcome.arrivals),
        prompt_tokens=outcome.prompt_tokens,
        cached_tokens=outcome.cached_tokens,
        tokens=outcome.tokens,
        counted_by=outcome.counted_by,
        drafted=outcome.drafted,
        accepted=outcome.accepted,
        finish=None if outcome.finish is None else one_line(outcome.finish),
    )


def _report(
    load: _Load, met: _Met, started: str, requests: Sequence[RequestRecord], *, interrupted: bool
) -> ServerReport:
    found = levels(requests)
    complete = len(requests) == load.repeat * sum(map(load.count, load.levels))
    told = list(findings(found, load.repeat))
    if not complete:
        why = "was interrupted" if interrupted else "ended when every request of a level failed"
        told.insert(0, Finding(problem=f"The measurement {why}.", remedy="Measure again."))
    return ServerReport(
        made_by=f"llamaspec {llamaspec.__version__}",
        started=started,
        url=load.url,
        model=one_line(met.asking.model),
        server=met.server,
        work=WorkRecord(
            name=load.name,
            sha256=load.work.sha256,
            prompts=len(load.work.prompts),
            kinds=load.work.kinds,
            n_predict=load.n_predict,
            repeat=load.repeat,
        ),
        counted_by=tuple(sorted({record.counted_by for record in requests if record.counted_by})),
        levels=found,
        notes=(*met.notes, _FRESH if load.unique else _AS_THEY_ARE),
        findings=tuple(told),
        conclusive=complete and all(level.tokens and not is_noisy(level) for level in found),
        complete=complete,
        requests=tuple(requests),
    )
