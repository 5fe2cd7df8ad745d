"""What goes wrong, in the shape of OpenAI's API: one JSON object, one status."""

from collections.abc import Mapping
from types import MappingProxyType

from starlette.responses import JSONResponse

from llamaspec.errors import (
    ClosedError,
    ContextError,
    EngineFailedError,
    GrammarError,
    LlamaspecError,
    QueueFullError,
    TemplateError,
    UsageError,
)

RETRY_SECONDS = 5
_LONGEST = 1000

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large_error",
    429: "rate_limit_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


class ApiError(LlamaspecError):
    """A request that is answered with `status`. `param` names the field at fault, where there is one.

    `figures` are told beside the message.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        figures: Mapping[str, int] = MappingProxyType({}),
    ):
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.figures = figures

    def body(self) -> dict[str, object]:
        """The JSON of the error, also for one in the middle of a stream."""
        shown = self.message.encode("utf-8", "replace").decode()  # it may quote what no text can hold
        shown = shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"
        too_long = self.code == "context_length_exceeded"
        kind = "exceed_context_size_error" if too_long else _TYPES.get(self.status, "invalid_request_error")
        code = self.code or self.status
        return {"error": {"message": shown, "type": kind, "param": self.param, "code": code, **self.figures}}


def problem(
    status: int,
    message: str,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer to a request that is refused or failed. A 503 and a 429 say when to come back."""
    return _response(ApiError(status, message, code=code, param=param), headers or {})


def _response(error: ApiError, headers: Mapping[str, str] = MappingProxyType({})) -> JSONResponse:
    known = {"Retry-After": str(RETRY_SECONDS)} if error.status in (429, 503) else {}
    return JSONResponse(error.body(), error.status, {**known, **headers})


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of an error. What is not its own doing is told without details."""
    if isinstance(error, ApiError):
        return error
    told = " ".join(filter(None, (getattr(error, "message", ""), getattr(error, "hint", ""))))
    if isinstance(error, QueueFullError | ClosedError | EngineFailedError):
        return ApiError(503, told)
    if isinstance(error, ContextError):
        figures = {"n_prompt_tokens": error.prompt_tokens, "n_ctx": error.context_size}
        known = {name: count for name, count in figures.items() if count is not None}
        return ApiError(400, told, code="context_length_exceeded", figures=known)
    if isinstance(error, UsageError | GrammarError | TemplateError):
        return ApiError(400, told)
    return ApiError(500, "The server failed to answer. Its log says more.")


def answer_error(error: Exception) -> JSONResponse:
    """The response for an error that a route raised."""
    return _response(as_api_error(error))
