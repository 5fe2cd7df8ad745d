"""What the routes need: a loaded pair, the engine's worker, and what is counted."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from llamaspec.closing import Closing
from llamaspec.decode.ports import Grammar
from llamaspec.decode.sequence import Request, Sequence
from llamaspec.engine.worker import Ticket, Worker
from llamaspec.errors import ContextError, GrammarError, QueueFullError, UsageError
from llamaspec.events import FinishEvent
from llamaspec.server.activity import Activity, Entry
from llamaspec.server.metrics import Levels, Metrics
from llamaspec.session import Session

_BYTES_PER_TOKEN = 64  # more than any text comes to on the whole


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one request may ask for."""

    max_waiting: int = 64
    max_n: int = 16
    max_prompts: int = 64


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What is told. Raises UsageError for names that could not be told apart.

    `names` are those of the model, of which answers tell the first; without any it is called as its profile
    or its file. `slots` and `metrics`: these paths are answered. `verbose`: answers tell their prompts.
    """

    names: tuple[str, ...] = ()
    slots: bool = True
    metrics: bool = True
    verbose: bool = False

    def __post_init__(self) -> None:
        if not all(self.names) or len(set(self.names)) < len(self.names):
            raise UsageError("A name of the model is empty, or given twice.", "Check --alias.")


class Service(Closing):
    """One pair, served. Its methods are called in the event loop; what takes long runs in threads.

    `on_end` is told of every request that has ended, in the engine's thread.
    """

    def __init__(
        self,
        session: Session,
        limits: Limits | None = None,
        on_end: Callable[[Entry], None] = lambda entry: None,
        options: ServiceOptions | None = None,
    ) -> None:
        self.session = session
        self.limits = limits or Limits()
        self.options = options or ServiceOptions()
        self.names = self.options.names or (_name(session),)
        self.model_id = self.names[0]
        session.get_ready_for_strangers()
        self.started = time.time()
        self.activity = Activity()
        self.metrics = Metrics(self._levels)
        self._telling = ThreadPoolExecutor(1, "telling")
        self._vetting = ThreadPoolExecutor(1, "vetting")
        self._to_vet = 0
        self._on_end = on_end
        self.worker = Worker(
            session.loaded.engine,
            max_waiting=self.limits.max_waiting,
            on_finish=self._count,
            on_idle=session.remember,
        )

    async def tokenize(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        """Token ids of a text. Raises ContextError for one that can't fit the context."""
        self.check_length(len(text))
        main = self.session.loaded.main
        return await asyncio.to_thread(main.tokenize, text, special=special, add_special=add_special)

    def check_length(self, characters: int) -> None:
        """Raises ContextError for what can't fit the context, and would take long to be told so."""
        size = self.session.loaded.engine.context_size
        if characters > _BYTES_PER_TOKEN * size:
            raise ContextError(
                f"A text of {characters} characters is far beyond the context.", context_size=size
            )

    async def render(
        self,
        messages: Seq[Mapping[str, Any]],
        tools: Seq[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> str:
        """The prompt text of a conversation. Raises TemplateError, UsageError, ContextError."""
        contents = (message.get("content") for message in messages)
        self.check_length(sum(len(content) for content in contents if isinstance(content, str)))
        text = await asyncio.to_thread(self.session.render, messages, tools=tools, **options)
        return text.encode("utf-8", "replace").decode()

    async def grammar(self, gbnf: str) -> Grammar:
        """A grammar ready for one request. Raises GrammarError for what is not sound, or too much."""
        if self._to_vet >= self.limits.max_waiting:
            raise QueueFullError(f"{self._to_vet} grammars are waiting to be tried out.", "Try again later.")
        self._to_vet += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._vetting, partial(self.session.grammar, gbnf, foreign=True)
            )
        finally:
            self._to_vet -= 1

    async def schema_grammar(self, schema: Mapping[str, Any]) -> str:
        """GBNF for the texts that a JSON schema allows. Raises GrammarError."""
        try:
            text = json.dumps(schema)
        except RecursionError:
            raise GrammarError("The JSON schema is nested too deeply.") from None
        return await asyncio.to_thread(self.session.schema_grammar, text)

    async def start(self, request: Request, *, kind: str) -> Ticket:
        """Queue one request: use what is returned in an `async with` block. See `start_all`."""
        [ticket] = await self.start_all([request], kind=kind)
        return ticket

    async def start_all(self, requests: Seq[Request], *, kind: str) -> list[Ticket]:
        """Queue every request or, where one is refused, none. Whoever calls cancels what still runs.

        `kind` is what /stats calls them. Raises ContextError, UsageError, QueueFullError, EngineFailedError.
        """
        for request in requests:
            self.session.loaded.engine.check(request)
        return self.worker.submit_all(requests, kind)

    def _count(self, ticket: Ticket, finish: FinishEvent) -> None:
        """In the worker's thread."""
        entry = self.activity.ended(ticket, finish)
        self.metrics.finished(entry.stats, finish.reason)  # before the client can know, and look
        self._telling.submit(self._tell, entry)

    def _tell(self, entry: Entry) -> None:
        """In a thread of its own: who listens may be slow."""
        stats = entry.stats
        if stats.time_to_first_token is not None:
            self.metrics.started(stats.queue_seconds)
            self.metrics.first_token(stats.time_to_first_token)
            self.metrics.token_gaps(stats.latencies)
        self._on_end(entry)

    def _levels(self) -> Levels:
        engine = self.session.loaded.engine
        return Levels(
            slots_busy=len(engine.running),
            slots=engine.slots,
            waiting=self.worker.waiting,
            kv_used=engine.held,
            kv_cells=engine.cells,
            decodes=engine.decodes,
            slots_in_decodes=engine.slots_in_decodes,
            estimated_speedup=self.activity.estimated_speedup,
        )

    def stats(self) -> dict[str, Any]:
        """What the web page shows: the slots, the queue, and figures over all requests."""
        session, engine = self.session, self.session.loaded.engine
        draft = session.files[1].path.name if len(session.files) > 1 else None
        return {
            "model": self.model_id,
            "draft_model": draft and draft.removesuffix(".gguf"),
            "mode": session.settings()["speculation"]["mode"],
            "uptime_seconds": time.time() - self.started,
            "slots": [_slot(number, running) for number, running in enumerate(self.slots())],
            "queue": {"waiting": self.worker.waiting, "limit": self.limits.max_waiting},
            "kv": {"used": engine.held, "cells": engine.cells},
            **self.activity.as_dict([sequence.stats for sequence in engine.running]),
        }

    def slots(self) -> list[Sequence | None]:
        """What runs in each slot."""
        engine = self.session.loaded.engine
        running = {sequence.seat: sequence for sequence in engine.running}
        return [running.get(seat) for seat in range(engine.slots)]

    def cancel_all(self) -> None:
        """End every request that runs or waits, and take no more."""
        self.worker.stop()

    def close(self) -> None:
        """End what runs, and free the models. A second call does nothing."""
        self.worker.close()
        self._vetting.shutdown(wait=False, cancel_futures=True)
        self._telling.shutdown()
        self.session.close()


def _slot(number: int, running: Sequence | None) -> dict[str, Any]:
    return {
        "id": number,
        "busy": running is not None,
        "request": running.id if running else None,
        "prompt_tokens": len(running.request.prompt) if running else 0,
        "predicted_tokens": running.predicted if running else 0,
        "mode": running.request.speculation.mode if running else None,
    }


def _name(session: Session) -> str:
    if session.profile.name != "flags":
        return session.profile.name
    return session.files[0].path.name.removesuffix(".gguf")
