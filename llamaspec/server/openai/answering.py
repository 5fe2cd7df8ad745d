"""From choices to the answer of an HTTP request, in one piece or streamed."""

import secrets
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from llamaspec.decode.ports import Grammar
from llamaspec.decode.sequence import Request
from llamaspec.engine.worker import Ticket
from llamaspec.errors import GrammarError
from llamaspec.events import FinishEvent, ProgressEvent
from llamaspec.server import answers
from llamaspec.server.fields import bias_by_token
from llamaspec.server.openai.bodies import OpenAIBody
from llamaspec.server.openai.choices import Choice, Part, TextChoice
from llamaspec.server.problems import ApiError
from llamaspec.server.service import Service
from llamaspec.server.streaming import EventStream, cancel_all, merged, unless_gone

_SEEDS = 1 << 64


async def constraint(service: Service, body: OpenAIBody) -> Grammar | None:
    """The grammar that the body asks for, compiled. Raises ApiError that names the field."""
    asked = {
        "response_format": body.schema_to_follow,
        "json_schema": body.json_schema,
        "grammar": body.grammar,
    }
    for param, wanted in asked.items():
        if wanted is None:
            continue
        try:
            gbnf = wanted if isinstance(wanted, str) else await service.schema_grammar(wanted)
            return await service.grammar(gbnf)
        except GrammarError as error:
            told = f"{param}: {error.message} {error.hint}".rstrip()
            raise ApiError(400, told, param=param) from error
    return None


def requests_for(
    service: Service,
    body: OpenAIBody,
    tokens: Sequence[int],
    count: int,
    *,
    grammar: Grammar | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
) -> list[Request]:
    """`count` requests with one prompt, each with a seed of its own. Raises UsageError and ApiError.

    The grammar is left as it is: each request gets a copy.
    """
    try:
        bias = bias_by_token(body.logit_bias, service.session.loaded.main.vocab_size)
    except ValueError as error:
        raise ApiError(400, f"logit_bias: {error}.", param="logit_bias") from error
    request = service.session.prepare(
        tokens,
        grammar=grammar,
        settings=body.settings(body.budget),
        logprobs=0 if logprobs is None and body.token_details else logprobs,
        prompt_logprobs=prompt_logprobs,
        logit_bias=bias,
        **body.wishes(),
    )
    return [
        replace(
            request,
            sampling=request.sampling.model_copy(update={"seed": (request.sampling.seed + number) % _SEEDS}),
            grammar=None if grammar is None else grammar.copy(),
        )
        for number in range(count)
    ]


def check_count(service: Service, prompts: int, each: int, param: str) -> None:
    """Raise ApiError for more texts than one request may ask for; `param` is what multiplies them."""
    limits = service.limits
    room = service.session.loaded.engine.slots + limits.max_waiting
    for name, asked, most in (
        ("prompt", prompts, limits.max_prompts),
        (param, each, limits.max_n),
        (param if each > 1 else "prompt", prompts * each, room),
    ):
        if asked > most:
            raise ApiError(
                400, f"{name}: {asked} texts are asked for, and at most {most} are taken.", param=name
            )


@dataclass(frozen=True)
class Shape:
    """What answers of an endpoint are called."""

    label: str  # in /stats
    id_prefix: str
    whole: str
    chunk: str


CHAT = Shape("chat", "chatcmpl-", "chat.completion", "chat.completion.chunk")
TEXT = Shape("completion", "cmpl-", "text_completion", "text_completion")


@dataclass(frozen=True)
class Answer:
    """One answer to one HTTP request: for each prompt its choices, of which the first `body.n` are told."""

    shape: Shape
    body: OpenAIBody
    prompts: Sequence[Sequence[Choice]]
    tickets: Sequence[Ticket]
    model: str
    vocabulary: answers.Vocabulary
    verbose: bool
    id: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self) -> JSONResponse:
        choices = list(chain.from_iterable(self.prompts))
        parts: list[list[Part]] = [choice.begin() for choice in choices]
        async with aclosing(merged(self.tickets)) as events:
            async for place, event in events:
                parts[place] += choices[place].take(event)
                if choices[place].done:
                    self.tickets[place].cancel()
        told: list[dict[str, Any]] = []
        of = dict(zip(choices, parts, strict=True))
        for candidates in self.prompts:
            for choice in _best(candidates, self.body.n):
                told.append({**choice.whole(of[choice]), "index": len(told)})
        more = {"usage": self._usage(), **answers.cost(self.tickets), **self._debugged()}
        return JSONResponse(self._envelope(self.shape.whole, told, more))

    async def chunks(self) -> AsyncGenerator[Mapping[str, Any]]:
        body, choices = self.body, list(chain.from_iterable(self.prompts))
        for choice in choices:
            for part in choice.begin():
                yield self._chunk([part], {})
        running = len(choices)
        async with aclosing(merged(self.tickets)) as events:
            async for place, event in events:
                parts = choices[place].take(event)
                if choices[place].done:
                    self.tickets[place].cancel()
                running -= isinstance(event, FinishEvent)
                for part in parts:
                    last = not running and part is parts[-1] and not body.include_usage
                    more = answers.progress(event, body) if isinstance(event, ProgressEvent) else None
                    yield self._chunk([part], more, last=last)
        if body.include_usage:
            yield self._chunk([], last=True)

    def _chunk(
        self, parts: Sequence[Part], more: Mapping[str, Any] | None = None, *, last: bool = False
    ) -> Mapping[str, Any]:
        """Unless `more` says what else is told, it is what the answer has cost so far."""
        told: dict[str, Any] = {}
        if self.body.include_usage:
            told["usage"] = self._usage() if not parts or self.body.continuous_usage else None
        if more is None and (last or self.body.timings_per_token):
            more = answers.cost(self.tickets)
        if last:
            told |= self._debugged()
        return self._envelope(self.shape.chunk, parts, told | dict(more or {}))

    def _debugged(self) -> dict[str, Any]:
        """llama-server's `__verbose`, where it was asked for."""
        return {"__verbose": answers.verbose(self.tickets[0], self.vocabulary)} if self.verbose else {}

    def _envelope(
        self, kind: str, choices: Sequence[Mapping[str, Any]], more: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": self.shape.id_prefix + self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": answers.fingerprint(),
            "choices": choices,
            **more,
        }

    def _usage(self) -> dict[str, Any]:
        tickets = iter(self.tickets)
        return answers.usage([[next(tickets) for _ in choices] for choices in self.prompts])


async def respond(
    service: Service, http: HttpRequest, shape: Shape, body: OpenAIBody, prompts: Sequence[Sequence[Choice]]
) -> Response:
    """Start the requests of all choices, and answer. Errors: as `Service.start`."""
    requests = [choice.request for choices in prompts for choice in choices]
    tickets = await service.start_all(requests, kind=shape.label)
    verbose = body.verbose or service.options.verbose
    main = service.session.loaded.main
    answer = Answer(shape, body, prompts, tickets, service.model_id, main, verbose)
    if body.stream:
        return EventStream(tickets, answer.chunks())
    try:
        return await unless_gone(http, answer.whole())
    finally:
        cancel_all(tickets)


def _best(choices: Sequence[Choice], count: int) -> Sequence[Choice]:
    """Those with the best mean log-probability of their tokens, where there are more than `count`."""
    if len(choices) <= count:
        return choices
    texts = [choice for choice in choices if isinstance(choice, TextChoice)]
    return sorted(texts, key=lambda choice: -choice.mean_logprob)[:count]
