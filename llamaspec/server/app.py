"""The application: routes, errors, and the guard before them."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import llamaspec
from llamaspec.errors import LlamaspecError
from llamaspec.server import llamacpp
from llamaspec.server.guard import Guard, GuardOptions
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


def create_app(service: Service, options: GuardOptions) -> ASGIApp:
    """Everything that is served, behind the guard. The caller closes the service."""
    app = _Application(
        title="llamaspec",
        version=llamaspec.__version__,
        docs_url=None,  # these pages would be fetched from elsewhere
        redoc_url=None,
        strict_content_type=False,  # as llama-server; other sites' pages are kept out by their origin
        responses={status: {"description": text, **_PROBLEM} for status, text in _PROBLEMS.items()},
    )
    app.include_router(openai_router(service))
    app.include_router(llamacpp.router(service))
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
        return problem(error.status_code, f"{error.detail}.", headers=error.headers)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return answer_error(ApiError(500, "The server failed to answer. Its log says more."))

    return Guard(app, options)
