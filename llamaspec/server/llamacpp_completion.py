"""/completion and /infill: bodies become requests of the engine, and events llama-server's answers."""

import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from llamaspec.decode.sequence import Request
from llamaspec.engine.worker import Ticket
from llamaspec.errors import ClosedError
from llamaspec.events import FinishEvent, FinishReason, ProgressEvent, TextEvent, TokenDetail
from llamaspec.server.answers import (
    Vocabulary,
    cost,
    progress,
    text_of_tokens,
    token_bytes,
    token_details,
)
from llamaspec.server.fields import MAX_BIASES, Inert
from llamaspec.server.llamacpp_bodies import (
    CompletionBody,
    CompletionOptions,
    InfillBody,
    Prompt,
    PromptObject,
)
from llamaspec.server.problems import ApiError
from llamaspec.server.service import Service
from llamaspec.server.streaming import EventStream, merged, unless_gone
from llamaspec.settings import SamplingSettings, SpeculationSettings

_LEAST_LOGPROB = -3.4028234663852886e38  # of an impossible token: JSON has no infinity
_MAX_TEXTS = 1024  # in one prompt
_MOST_DIGITS = 16  # more than a token id has, and no work to read


def prompts_of(prompt: Any) -> Sequence[Prompt]:
    """The prompts that a body's `prompt` is. Raises ApiError for a list of token ids and lists."""
    if isinstance(prompt, str | PromptObject):
        return [prompt]
    ids = [isinstance(part, int) for part in prompt]
    if any(ids):
        if all(isinstance(part, int | str) for part in prompt):
            return [prompt]
        raise ApiError(400, "A list of prompts holds no token ids of its own.", param="prompt")
    return list(prompt)


async def tokens_of(
    service: Service, prompt: Prompt, *, add_special: bool = True, special: bool = True
) -> list[int]:
    """Token ids of a prompt, of which only the first text gets what `add_special` puts in front."""
    parts = [prompt.prompt_string] if isinstance(prompt, PromptObject) else prompt
    parts = [parts] if isinstance(parts, str) else parts
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) > _MAX_TEXTS:
        raise ApiError(400, f"A prompt may have {_MAX_TEXTS} texts at most.")
    service.check_length(sum(map(len, texts)))
    tokens: list[int] = []
    for place, part in enumerate(parts):
        if isinstance(part, int):
            tokens.append(part)
        else:
            first = add_special and place == 0
            tokens += await service.tokenize(part, special=special, add_special=first)
    return tokens


async def fill_in_tokens(service: Service, body: InfillBody) -> list[int]:
    """The prompt for the text between two others.

    Files that go before are headed as in the repository format of Qwen2.5-Coder (Hui et al. 2024) where the
    model has the tokens for it. Raises ApiError where it has none for filling in.
    """
    marks = service.session.loaded.main.fill_in
    if marks is None:
        raise ApiError(501, "This model has no tokens for filling in.")

    async def plain(text: str) -> list[int]:
        return await service.tokenize(text, special=False, add_special=False)

    tokens = await service.tokenize("")
    if body.input_extra and marks.repository is not None:
        tokens += [marks.repository, *await plain("repository\n")]
    for file in body.input_extra:
        if marks.file is not None:
            tokens += [marks.file, *await plain(f"{file.filename}\n{file.text}")]
        else:
            tokens += await plain(f"{file.text}\n\n")
    if body.input_extra and marks.file is not None:
        tokens += [marks.file, *await plain("file\n")]
    tokens += [marks.prefix, *await plain(body.input_prefix + body.prompt)]
    return [*tokens, marks.suffix, *await plain(body.input_suffix), marks.middle]


async def biases_of(service: Service, body: CompletionOptions) -> dict[int, float]:
    """What is added to the logits of single tokens; a text stands for each of its tokens."""
    given = body.logit_bias
    biases: dict[int, float] = {}
    for name, value in given.items() if isinstance(given, dict) else given:
        bias = -math.inf if value is False else value
        if isinstance(name, int) or (name.isascii() and name.isdigit()):
            tokens = [int(str(name)[:_MOST_DIGITS])]
        else:
            tokens = await service.tokenize(name, special=False, add_special=False)
        if any(token >= service.session.loaded.main.vocab_size for token in tokens):
            raise ApiError(400, f"{name} is not a token id of this model.", param="logit_bias")
        biases |= dict.fromkeys(tokens, bias)
    if len(biases) > MAX_BIASES:
        raise ApiError(400, f"At most {MAX_BIASES} tokens may have a bias.", param="logit_bias")
    return biases


async def requests_of(
    service: Service, body: CompletionOptions, prompts: Sequence[Sequence[int]], grammar: str
) -> list[Request]:
    """A request for each answer to each prompt; several answers to one differ by their seeds."""
    constraint = await service.grammar(grammar) if grammar else None
    biases = await biases_of(service, body)
    settings = body.overrides()
    requests = []
    for tokens in prompts:
        for number in range(body.n_cmpl):
            own = settings
            if number and body.seed is not None and body.seed >= 0:
                own = {**settings, "sampling": settings["sampling"] | {"seed": body.seed + number}}
            request = service.session.prepare(
                tokens,
                grammar=constraint and constraint.copy(),
                settings=own,
                logprobs=body.n_probs or None,
                post_sampling=body.post_sampling_probs,
                logit_bias=biases,
                **body.wishes(),
            )
            requests.append(request)
    return requests


async def complete(
    http: HttpRequest, service: Service, body: CompletionBody | InfillBody, kind: str
) -> Response:
    """Answer a body: one object for one prompt, a list for several, or a stream of both."""
    if body.n_cmpl > service.limits.max_n:
        raise ApiError(400, f"At most {service.limits.max_n} answers are given to a prompt.", param="n_cmpl")
    if isinstance(body, InfillBody):
        prompts = [await fill_in_tokens(service, body)]
    else:
        given = prompts_of(body.prompt)
        if len(given) > service.limits.max_prompts:
            raise ApiError(400, f"At most {service.limits.max_prompts} prompts are taken.", param="prompt")
        prompts = [await tokens_of(service, prompt) for prompt in given]
    grammar = body.grammar
    if body.json_schema is not None:
        grammar = await service.schema_grammar(body.json_schema or {"type": "object"})
    requests = await requests_of(service, body, prompts, grammar)
    tickets = await service.start_all(requests, kind=kind)
    answers = [
        Answer(number, ticket, body, service.session.loaded.main, service.model_id, grammar)
        for number, ticket in enumerate(tickets)
    ]
    if body.stream:
        return EventStream(tickets, _chunks(tickets, answers), end="")
    return await unless_gone(http, _whole(tickets, answers))


async def _chunks(
    tickets: Sequence[Ticket], answers: Sequence["Answer"]
) -> AsyncGenerator[Mapping[str, Any]]:
    async for place, event in merged(tickets):
        if isinstance(event, TextEvent):
            yield answers[place].take(event)
        elif isinstance(event, ProgressEvent):
            yield answers[place].progress(event)
        elif isinstance(event, FinishEvent):
            yield answers[place].final(event)


async def _whole(tickets: Sequence[Ticket], answers: Sequence["Answer"]) -> Response:
    ends: dict[int, dict[str, Any]] = {}
    async for place, event in merged(tickets):
        if isinstance(event, TextEvent):
            answers[place].take(event)
        elif isinstance(event, FinishEvent):
            ends[place] = answers[place].final(event)
    told = [ends[place] for place in range(len(answers))]
    return JSONResponse(told[0] if len(told) == 1 else told)


class FullVocabulary(Vocabulary, Protocol):
    """How tokens are written, and which end a text."""

    @property
    def eog_tokens(self) -> Sequence[int]: ...


class Answer:
    """What becomes of one request, in llama-server's shape. `clock` gives seconds."""

    def __init__(
        self,
        index: int,
        ticket: Ticket,
        body: CompletionOptions,
        vocabulary: FullVocabulary,
        model_id: str,
        grammar: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._ticket = ticket
        self._body = body
        self._vocabulary = vocabulary
        self._model_id = model_id
        self._grammar = grammar
        self._clock = clock
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._details: list[TokenDetail] = []
        self._first_at: float | None = None
        self._has_new_line = False
        self._out_of_time = False

    def take(self, event: TextEvent) -> dict[str, Any]:
        """The chunk of a stream for some text. A request whose time is up is cancelled."""
        self._text.append(event.text)
        self._tokens += event.tokens
        self._details += event.details
        self._has_new_line = self._has_new_line or "\n" in event.text
        now = self._clock()
        self._first_at = now if self._first_at is None else self._first_at
        most = self._body.t_max_predict_ms
        if most > 0 and self._has_new_line and now - self._first_at > most / 1e3:
            self._out_of_time = True
            self._ticket.cancel()
        chunk = self._chunk(event.text, event.tokens) | self._about(event.details)
        return chunk | (cost([self._ticket]) if self._body.timings_per_token else {})

    def progress(self, event: ProgressEvent) -> dict[str, Any]:
        """The chunk of a stream for a part of the prompt that was read."""
        return self._chunk("", ()) | progress(event, self._body)

    def _chunk(self, text: str, tokens: Sequence[int]) -> dict[str, Any]:
        return {
            "index": self._index,
            "content": text,
            "tokens": list(tokens),
            "stop": False,
            "id_slot": self._body.id_slot,
            "tokens_predicted": self._ticket.stats.predicted_tokens,
            "tokens_evaluated": len(self._ticket.request.prompt),
        }

    def final(self, finish: FinishEvent) -> dict[str, Any]:
        """The whole answer, or the last chunk of a stream, which has no text and no tokens.

        Raises ClosedError where the request was cancelled by others.
        """
        if finish.reason is FinishReason.CANCELLED and not self._out_of_time:
            raise ClosedError("The server is shutting down.")
        request, stats, body = self._ticket.request, self._ticket.stats, self._body
        limit, held = request.sampling.n_predict, len(request.prompt) + stats.predicted_tokens
        stopped = "word" if finish.stopped_by else "eos"
        answer = {
            "index": self._index,
            "content": "" if body.stream else "".join(self._text),
            "tokens": [] if body.stream or not body.return_tokens else self._tokens,
            "id_slot": body.id_slot,
            "stop": True,
            "model": self._model_id,
            "tokens_predicted": stats.predicted_tokens,
            "tokens_evaluated": len(request.prompt),
            "tokens_cached": max(len(request.prompt), held - 1),
            "generation_settings": self._settings(),
            "prompt": text_of_tokens(request.prompt, self._vocabulary),
            "has_new_line": self._has_new_line,
            "truncated": finish.reason is FinishReason.LENGTH and not 0 <= limit <= stats.predicted_tokens,
            "stop_type": stopped if finish.reason is FinishReason.STOP else "limit",
            "stopping_word": finish.stopped_by,
            **cost([self._ticket]),
        }
        if not body.stream:
            answer |= self._about(self._details)
        return _picked(answer, body.response_fields) if body.response_fields else answer

    def _about(self, details: Sequence[TokenDetail]) -> dict[str, Any]:
        """What was asked for about single tokens."""
        about: dict[str, Any] = {}
        if self._body.n_probs:
            top = "top_probs" if self._body.post_sampling_probs else "top_logprobs"
            about["completion_probabilities"] = [
                self._probability(detail.token, detail.logprob)
                | {top: [self._probability(*alternative) for alternative in detail.top]}
                for detail in details
            ]
        if self._body.token_details:
            about["token_details"] = token_details(details, self._vocabulary)
        return about

    def _probability(self, token: int, logprob: float | None) -> dict[str, Any]:
        written = token_bytes(self._vocabulary, token)
        told = {"id": token, "token": written.decode("utf-8", "replace"), "bytes": list(written)}
        if self._body.post_sampling_probs:
            return {**told, "prob": None if logprob is None else math.exp(logprob)}
        return {**told, "logprob": None if logprob is None else max(logprob, _LEAST_LOGPROB)}

    def _settings(self) -> dict[str, Any]:
        request = self._ticket.request
        biases = dict(request.logit_bias)
        if request.sampling.ignore_eos:
            biases |= dict.fromkeys(self._vocabulary.eog_tokens, -math.inf)
        return generation_settings(
            request.sampling, request.speculation, self._body, grammar=self._grammar, biases=biases
        )


def generation_settings(
    sampling: SamplingSettings,
    speculation: SpeculationSettings,
    body: CompletionOptions,
    *,
    grammar: str = "",
    biases: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """llama-server's view of how an answer is made: what took effect, and what is not there at rest."""
    return {
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_last_n": sampling.repeat_last_n,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "samplers": body.stages,
        "stop": list(sampling.stop),
        "max_tokens": sampling.n_predict,
        "n_predict": sampling.n_predict,
        "ignore_eos": sampling.ignore_eos,
        "stream": body.stream,
        "logit_bias": [
            {"bias": bias if math.isfinite(bias) else None, "token": token}
            for token, bias in (biases or {}).items()
        ],
        "n_probs": body.n_probs,
        "post_sampling_probs": body.post_sampling_probs,
        "grammar": grammar,
        "timings_per_token": body.timings_per_token,
        "speculative.mode": speculation.mode,
        "speculative.n_max": speculation.ceiling,
        "speculative.n_min": speculation.draft_min,
        "speculative.p_min": speculation.p_min,
        **{name: getattr(body, name) for name in Inert.model_fields},
    }


def _picked(answer: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """The fields that a client wants, under the names that it gave; what is not there is left out."""
    picked: dict[str, Any] = {}
    for path in fields:
        value: Any = answer
        for name in path.split("/"):
            value = value.get(name, _picked) if isinstance(value, Mapping) else _picked
        if value is not _picked:
            picked[path] = value
    return picked
