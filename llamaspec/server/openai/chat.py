"""POST /v1/chat/completions."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from starlette.responses import Response

from llamaspec.errors import GrammarError
from llamaspec.server.openai.answering import CHAT, check_count, constraint, requests_for, respond
from llamaspec.server.openai.bodies import ChatBody
from llamaspec.server.openai.choices import ChatChoice
from llamaspec.server.openai.messages import for_template, split_prefill
from llamaspec.server.problems import ApiError
from llamaspec.server.service import Service
from llamaspec.server.tools import ToolCallStream, ToolSupport, call_grammar, find_tools, template_messages
from llamaspec.templates import TEMPLATE_OPTIONS


def router(service: Service, conversations: "Conversations") -> APIRouter:
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/chat/completions", summary="Answer a conversation")
    @routes.post("/chat/completions", include_in_schema=False)
    async def chat(body: ChatBody, http: HttpRequest) -> Response:
        check_count(service, 1, body.n, "n")
        prompt = await conversations.render(body)
        grammar = await constraint(service, body)
        if prompt.calls_grammar is not None:
            grammar = await service.grammar(prompt.calls_grammar)
        tokens = await service.tokenize(prompt.text)
        requests = requests_for(service, body, tokens, body.n, grammar=grammar, logprobs=body.alternatives)
        choices = [
            ChatChoice(
                index,
                request,
                service.session.loaded.main,
                logprobs=body.logprobs,
                tell_details=body.token_details,
                calls=_reader(body, prompt.tools),
                keep_broken=body.forced,
            )
            for index, request in enumerate(requests)
        ]
        return await respond(service, http, CHAT, body, [choices])

    @routes.post("/v1/chat/completions/input_tokens", summary="Count the tokens of a conversation")
    @routes.post("/chat/completions/input_tokens", include_in_schema=False)
    async def count(body: ChatBody) -> dict[str, Any]:
        tokens = await service.tokenize((await conversations.render(body)).text)
        return {"object": "response.input_tokens", "input_tokens": len(tokens)}

    return routes


@dataclass(frozen=True)
class _Prompt:
    """A conversation as text. `tools`: how its model calls them, where it may; then perhaps a grammar too."""

    text: str
    tools: ToolSupport | None = None
    calls_grammar: str | None = None


class Conversations:
    """Renders what chat bodies hold, and knows what the template does with tools."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._support: ToolSupport | None = None

    async def render(self, body: ChatBody) -> _Prompt:
        """Raises ApiError, TemplateError, UsageError and GrammarError."""
        shown, beginning = split_prefill(body.messages, body.continue_final_message)
        messages = for_template(shown)
        options = self._options(body)
        if not body.functions and not any("tool_calls" in message for message in messages):
            return _Prompt(await self._service.render(messages, **options) + beginning)
        support = await self._find_tools()
        messages = template_messages(messages, support)
        text = await self._service.render(messages, body.as_given, **options) + beginning
        return _Prompt(text, support, await self._calls_grammar(body, support))

    async def _find_tools(self) -> ToolSupport:
        def render(
            messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None
        ) -> str:
            return self._service.session.render(messages, tools=tools)

        if self._support is None:
            self._support = await asyncio.to_thread(find_tools, render)
        return self._support

    async def _calls_grammar(self, body: ChatBody, support: ToolSupport) -> str | None:
        for param in ("response_format", "json_schema", "grammar"):
            asked = body.schema_to_follow if param == "response_format" else getattr(body, param)
            if body.functions and asked is not None:
                raise ApiError(400, f"{param}: it can't be kept where tools may be called.", param=param)
        try:
            convert = self._service.session.schema_grammar
            return await asyncio.to_thread(call_grammar, body, support.format, convert)
        except GrammarError as error:
            raise ApiError(400, f"tools: {error.message} {error.hint}".rstrip(), param="tools") from error

    def _options(self, body: ChatBody) -> dict[str, Any]:
        """What the template reads beside messages and tools."""
        options = dict(body.chat_template_kwargs or {})
        if unknown := sorted(options.keys() - TEMPLATE_OPTIONS):
            param = f"chat_template_kwargs.{unknown[0]}"
            known = ", ".join(sorted(TEMPLATE_OPTIONS))
            raise ApiError(
                400, f"{param}: it is not an option of chat templates, as are {known}.", param=param
            )
        if body.reasoning_effort is not None:
            if "reasoning_effort" not in self._service.session.template:
                message = "reasoning_effort: the chat template of this model does not read it."
                raise ApiError(400, message, param="reasoning_effort")
            options["reasoning_effort"] = body.reasoning_effort
        return options


def _reader(body: ChatBody, support: ToolSupport | None) -> ToolCallStream | None:
    if support is None or not body.functions:
        return None
    return ToolCallStream(support, body.functions, parallel=body.parallel_tool_calls, exact=body.forced)
