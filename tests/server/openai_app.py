"""The whole application over a tiny model, asked through ASGI: no socket, but the real engine."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
from gguf_files import tiny_llama
from starlette.types import ASGIApp

import llamaspec
from llamaspec.server.app import create_app
from llamaspec.server.guard import GuardOptions
from llamaspec.server.service import Limits, Service

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@contextmanager
def tiny_service(
    folder: Path, *, parallel: int = 2, template: str | None = None, limits: Limits | None = None
) -> Iterator[Service]:
    """A tiny pair whose draft is often right, with a context of 512 tokens."""
    main, draft = tiny_llama(folder / "main.gguf"), tiny_llama(folder / "draft.gguf", noise=0.1)
    settings = {
        "runtime": {"threads": 1, "ctx_size": 512, "device": "cpu"},
        "speculation": {"mode": "fixed", "draft_max": 4, "p_min": 0.0},
        "sampling": {"n_predict": 16, "seed": 1},
        "chat": {"template": template},
    }
    session = llamaspec.load(main=str(main), draft=str(draft), settings=settings, parallel=parallel)
    with Service(session, limits) as service:
        yield service


@lru_cache(maxsize=1)
def app_of(service: Service) -> ASGIApp:
    return create_app(service, GuardOptions())


def ask(
    service: Service, path: str, body: Mapping[str, Any] | bytes | None = None, method: str | None = None
) -> httpx.Response:
    """GET, or POST where there is a body."""
    content = body if isinstance(body, bytes | None) else json.dumps(body)

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            return await client.request(
                method or ("GET" if body is None else "POST"),
                path,
                content=content,
                headers={} if body is None else {"Content-Type": "application/json"},
            )

    return asyncio.run(asked())


def chat(service: Service, **body: Any) -> dict[str, Any]:
    """The answer to a conversation."""
    return answered(service, CHAT, {"messages": HELLO, **body})


def complete(service: Service, prompt: Any, **body: Any) -> dict[str, Any]:
    return answered(service, TEXT, {"prompt": prompt, **body})


def answered(service: Service, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    response = ask(service, path, body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def streamed(service: Service, path: str, **body: Any) -> list[dict[str, Any]]:
    """The chunks of a stream, which ends as OpenAI's do."""
    given = {"messages": HELLO} if path == CHAT else {}
    response = ask(service, path, {**given, **body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    return [json.loads(each) for each in data]


def refusal(service: Service, path: str, body: Mapping[str, Any] | bytes) -> dict[str, Any]:
    """What a request that is wrong is told."""
    response = ask(service, path, body)
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error
