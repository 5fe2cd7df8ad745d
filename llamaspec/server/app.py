"""The application: routes, errors, and the guard before them."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import llamaspec
from llamaspec.errors import LlamaspecError
from llamaspec.server import llamacpp
from llamaspec.server.guard import Guard, GuardOptions
from llamaspec.server.openai.chat import Conversations
from llamaspec.server.openai.routes import router as openai_router
from llamaspec.server.page import page_routes
from llamaspec.server.problems import ApiError, answer_error, problem
from llamaspec.server.service import Service
from llamaspec.server.validation import validation_problem

_PROBLEM = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["message", "type", "param", "code"],
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"type": ["string", "integer"]},
                        },
                    }
                },
            }
        }
    }
}
_PROBLEMS = {
    400: "The request is wrong.",
    401: "The API key is missing or wrong.",
    403: "The host or origin is not allowed.",
    404: "There is no such path or model.",
    405: "The path has no such method.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    500: "The server failed to answer.",
    501: "Not supported by this server.",
    503: "Too many requests wait, or the engine has failed.",
}


class _Application(FastAPI):
    """Whose document does not promise FastAPI's answer to invalid bodies: ours is a 400."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
        return super().openapi()


class _Told:
    """Tells method, path and status of every request that is refused or failed."""

    def __init__(self, app: ASGIApp, tell: Callable[[str, str, int], None]) -> None:
        self._app = app
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                self._tell(scope["method"], scope["path"], message["status"])
            await send(message)

        await self._app(scope, receive, watched)


def create_app(
    service: Service,
    options: GuardOptions,
    on_refusal: Callable[[str, str, int], None] = lambda method, path, status: None,
) -> ASGIApp:
    """Everything that is served, behind the guard. The caller closes the service.

    `on_refusal` is told method, path and status of every request that is refused.
    """
    app = _Application(
        title="llamaspec",
        version=llamaspec.__version__,
        docs_url=None,  # these pages would be fetched from elsewhere
        redoc_url=None,
        strict_content_type=False,  # as llama-server; other sites' pages are kept out by their origin
        responses={status: {"description": text, **_PROBLEM} for status, text in _PROBLEMS.items()},
    )
    conversations = Conversations(service)
    app.include_router(openai_router(service, conversations))
    app.include_router(llamacpp.router(service, conversations))
    app.router.routes.extend(page_routes())

    @app.get("/stats", tags=["llamaspec"])
    async def stats() -> dict[str, object]:
        """What the server does and has done: for the web page."""
        return service.stats()

    @app.get("/metrics", tags=["llamaspec"], response_class=Response)
    async def metrics(request: Request) -> Response:
        """Figures for Prometheus."""
        if not service.options.metrics:
            raise ApiError(501, "Metrics are switched off.")
        body, kind = service.metrics.render(request.headers.get("accept", ""))
        started = str(int(service.started))  # as llama-server tells it
        return Response(body, headers={"Content-Type": kind, "Process-Start-Time-Unix": started})

    @app.exception_handler(LlamaspecError)
    async def failed(request: Request, error: Exception) -> Response:
        return answer_error(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer_error(validation_problem(error))

    @app.exception_handler(HTTPException)
    async def unroutable(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        missing = f"There is nothing at {request.url.path[:200]} here."
        message = missing if error.status_code == 404 else f"{error.detail}."
        return problem(error.status_code, message, headers=error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return answer_error(ApiError(500, "The server failed to answer. Its log says more."))

    return _Told(Guard(app, options), on_refusal)
