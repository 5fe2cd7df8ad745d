"""What the routes need: a loaded pair, the engine's worker, and what is counted."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

from llamaspec.closing import Closing
from llamaspec.decode.ports import Grammar
from llamaspec.decode.sequence import Request, Sequence
from llamaspec.engine.worker import Ticket, Worker
from llamaspec.errors import ContextError
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


class Service(Closing):
    """One pair, served. Its methods are called in the event loop; what takes long runs in threads.

    `on_end` is told of every request that has ended, in the engine's thread.
    """

    def __init__(
        self,
        session: Session,
        limits: Limits | None = None,
        on_end: Callable[[Entry], None] = lambda entry: None,
    ) -> None:
        self.session = session
        self.limits = limits or Limits()
        self.model_id = _name(session)
        session.get_ready_for_strangers()
        self.started = time.time()
        self.activity = Activity()
        self.metrics = Metrics(self._levels)
        self._on_end = on_end
        self.worker = Worker(
            session.loaded.engine,
            max_waiting=self.limits.max_waiting,
            on_finish=self._count,
            on_idle=session.remember,
        )

    async def tokenize(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        """Token ids of a text. Raises ContextError for one that can't fit the context."""
        if len(text) > _BYTES_PER_TOKEN * self.session.loaded.engine.context_size:
            raise ContextError(f"A text of {len(text)} characters is far beyond the context.")
        main = self.session.loaded.main
        return await asyncio.to_thread(main.tokenize, text, special=special, add_special=add_special)

    async def render(
        self,
        messages: Seq[Mapping[str, Any]],
        tools: Seq[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> str:
        """The prompt text of a conversation. Raises TemplateError, UsageError."""
        return await asyncio.to_thread(self.session.render, messages, tools=tools, **options)

    async def grammar(self, gbnf: str) -> Grammar:
        """A grammar ready for one request. Raises GrammarError for what is not sound, or too much."""
        return await asyncio.to_thread(self.session.grammar, gbnf, foreign=True)

    async def schema_grammar(self, schema: Mapping[str, Any]) -> str:
        """GBNF for the texts that a JSON schema allows. Raises GrammarError."""
        return await asyncio.to_thread(self.session.schema_grammar, json.dumps(schema))

    async def start(self, request: Request, *, kind: str) -> Ticket:
        """Queue a request: use what is returned in an `async with` block.

        `kind` is what /stats calls it. Raises ContextError, UsageError, QueueFullError, EngineFailedError.
        """
        self.session.loaded.engine.check(request)
        return self.worker.submit(request, kind)

    def _count(self, ticket: Ticket, finish: FinishEvent) -> None:
        """In the worker's thread."""
        stats = ticket.stats
        entry = self.activity.ended(ticket, finish)
        if stats.time_to_first_token is not None:
            self.metrics.started(stats.queue_seconds)
            self.metrics.first_token(stats.time_to_first_token)
            self.metrics.token_gaps(stats.latencies)
        self.metrics.finished(stats, finish.reason)
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
            "slots": [_slot(number, running) for number, running in enumerate(self._slots())],
            "queue": {"waiting": self.worker.waiting, "limit": self.limits.max_waiting},
            "kv": {"used": engine.held, "cells": engine.cells},
            **self.activity.as_dict([sequence.stats for sequence in engine.running]),
        }

    def _slots(self) -> list[Sequence | None]:
        engine = self.session.loaded.engine
        running = list(engine.running)[: engine.slots]
        return [*running, *[None] * (engine.slots - len(running))]

    def cancel_all(self) -> None:
        """End every request that runs or waits, and take no more."""
        self.worker.stop()

    def close(self) -> None:
        """End what runs, and free the models. A second call does nothing."""
        self.worker.close()
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
