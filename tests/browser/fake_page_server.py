"""A server with the real page, and answers that a test has laid out: no model, no engine."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llamaspec.server.page import page_routes

STATS: dict[str, Any] = {
    "model": "big-1.5b",
    "draft_model": "small-0.5b",
    "mode": "auto",
    "uptime_seconds": 62.0,
    "slots": [
        {"id": 0, "busy": True, "request": 7, "prompt_tokens": 30, "predicted_tokens": 12, "mode": "auto"},
        {"id": 1, "busy": False, "request": None, "prompt_tokens": 0, "predicted_tokens": 0, "mode": "auto"},
    ],
    "queue": {"waiting": 2, "limit": 64},
    "kv": {"used": 300, "cells": 4096},
    "speed": {"tokens_per_second": 24.1, "plain_tokens_per_second": 15.0, "estimated_speedup": 1.6},
    "acceptance_rate": 0.81,
    "acceptance_per_position": [0.95, 0.88, 0.81, 0.72, 0.6],
    "draft_lengths": {"0": 12, "2": 5, "4": 30, "8": 9},
    "drafters": {
        "model": {"draft_n": 100, "draft_n_accepted": 80, "rounds": 20, "seconds": 1.2},
        "ngram": {"draft_n": 20, "draft_n_accepted": 17, "rounds": 4, "seconds": 0.0},
    },
    "history": [
        {
            "id": 7 - n,
            "at": 1795000000.0 - 20 * n,
            "kind": "chat",
            "mode": "auto",
            "prompt_tokens": 30,
            "cached_tokens": 0,
            "predicted_tokens": 64,
            "time_to_first_token": 0.31,
            "tokens_per_second": 21.0,
            "draft_n": 50,
            "draft_n_accepted": 41,
            "estimated_speedup": 1.5,
            "finish_reason": "stop",
        }
        for n in range(7)
    ],
}

Token = tuple[str, str | None]
STORY: list[Token] = [
    ("Speculative", None),
    (" decoding", "model"),
    (" is", "model"),
    (" **", None),
    ("fast", "ngram"),
    ("**", "ngram"),
    (" here", "corpus"),
    (".", None),
    ("\n\n", None),
    ("- one\n", "model"),
    ("- two", None),
]


@dataclass
class FakeServer:
    """`answer` is what each chat request gets; with `hold_after` a stream waits after so many tokens."""

    key: str | None = None
    answer: list[Token] = field(default_factory=lambda: list(STORY))
    hold_after: int | None = None
    refusal: Response | None = None
    break_off: bool = False
    stats: dict[str, Any] = field(default_factory=lambda: dict(STATS))
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    left: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        routes = [
            *page_routes(),
            Route("/stats", self._stats),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="error", timeout_graceful_shutdown=1, ws="none"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def _refused(self, request: Request) -> Response | None:
        self.paths.append(request.url.path)
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return problem(401, "A key is needed.")
        return None

    async def _stats(self, request: Request) -> Response:
        return self._refused(request) or JSONResponse(self.stats)

    async def _chat(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        self.bodies.append(await request.json())
        return self.refusal or StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        off = self.bodies[-1].get("speculative", {}).get("mode") == "off"
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for n, (text, drafter) in enumerate(self.answer):
                if n == self.hold_after:
                    await asyncio.Event().wait()
                yield event(token(n, text, None if off else drafter))
            if not self.break_off:
                yield event(ending(len(self.answer), off))
                yield event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 11}})
                yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left.set()
            raise
        finally:
            self.at_once -= 1


def problem(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": status}
    return JSONResponse({"error": error}, status, headers)


def event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


def token(n: int, text: str, drafter: str | None) -> dict[str, Any]:
    detail = {"id": n, "text": text, "drafter": drafter, "round": n // 3 + 1, "probability": 0.93}
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, "token_details": [detail]}
    return {"choices": [choice]}


def ending(tokens: int, off: bool) -> dict[str, Any]:
    timings = {
        "predicted_n": tokens,
        "predicted_per_second": 15.0 if off else 24.0,
        "draft_n": 0 if off else 8,
        "draft_n_accepted": 0 if off else 6,
        "time_to_first_token_ms": 310.0,
    }
    if not off:
        timings["estimated_speedup"] = 1.6
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "timings": timings}
