"""llama-server's own API, for its clients and tools; and what lm-eval asks of a tokenizer's server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from llamaspec.decode.sequence import Phase
from llamaspec.decode.sequence import Sequence as Running
from llamaspec.server.answers import fingerprint
from llamaspec.server.llamacpp_bodies import CompletionBody, DetokenizeBody, InfillBody, TokenizeBody
from llamaspec.server.llamacpp_completion import complete, generation_settings, tokens_of
from llamaspec.server.openai.bodies import ChatBody
from llamaspec.server.openai.chat import Conversations
from llamaspec.server.problems import ApiError
from llamaspec.server.service import Service

_MOST_CONTEXTS = 64  # that the tokens of one text may fill

_MISSING = {
    ("POST", "/props"): "Properties can't be changed while the server runs.",
    ("POST", "/slots/{id_slot}"): "Slots can't be saved, restored or erased.",
    ("POST", "/lora-adapters"): "LoRA adapters are not supported.",
    **{
        ("POST", path): "Embeddings are not supported."
        for path in ("/embedding", "/embeddings", "/v1/embeddings")
    },
    **{
        ("POST", path): "Reranking is not supported."
        for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")
    },
}
"""What llama-server has, if it is started for it, and this server has not."""


def router(service: Service, conversations: Conversations) -> APIRouter:
    """The routes of llama-server's API."""
    routes = APIRouter(tags=["llama.cpp"])
    session = service.session
    model, engine = session.loaded.main, session.loaded.engine

    @routes.get("/health")
    @routes.get("/v1/health")
    async def health() -> dict[str, str]:
        """Whether requests are answered."""
        if (failure := service.worker.failure) is not None:
            raise ApiError(503, failure.message)
        return {"status": "ok"}

    @routes.get("/props")
    async def props() -> dict[str, Any]:
        """What is served, and how it answers unless a request says otherwise."""
        profile, idle = session.profile, CompletionBody(prompt="")
        return {
            "default_generation_settings": {
                "params": generation_settings(profile.sampling, profile.speculation, idle),
                "n_ctx": engine.context_size,
            },
            "total_slots": engine.slots,
            "model_alias": service.model_id,
            "model_ftype": session.loaded.main_facts.quantisation,
            "model_path": session.files[0].path.name,
            "modalities": {"vision": False, "video": False, "audio": False},
            "endpoint_slots": service.options.slots,
            "endpoint_props": False,
            "endpoint_metrics": service.options.metrics,
            "chat_template": session.template,
            "bos_token": model.special_text(model.bos),
            "eos_token": model.special_text(model.eos),
            "build_info": fingerprint(),
            "is_sleeping": False,
        }

    @routes.get("/slots")
    async def slots(fail_on_no_slot: bool = False) -> list[dict[str, Any]]:
        """What runs in each slot, without the texts; with `fail_on_no_slot` a 503 where none is free."""
        if not service.options.slots:
            raise ApiError(501, "What the slots do is not told.")
        slots = service.slots()
        if fail_on_no_slot and None not in slots:
            raise ApiError(503, "No slot is free.")
        speculative = bool(session.loaded.drafters)
        return [
            {"id": number, "n_ctx": engine.context_size, "speculative": speculative, **_progress(running)}
            for number, running in enumerate(slots)
        ]

    @routes.post("/completion")
    @routes.post("/completions")
    async def completion(http: HttpRequest, body: CompletionBody) -> Response:
        """Go on from a text, from token ids, or from several of these."""
        return await complete(http, service, body, "completion")

    @routes.post("/infill")
    async def infill(http: HttpRequest, body: InfillBody) -> Response:
        """Write what comes between two texts."""
        return await complete(http, service, body, "infill")

    @routes.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        """Token ids of a text, or of texts and token ids in turn."""
        if body.prompt is not None:
            tokens = await service.tokenize(body.prompt, add_special=body.add_special_tokens)
            return {"tokens": tokens, "count": len(tokens), "max_model_len": engine.context_size}
        content = () if body.content is None else body.content
        tokens = await tokens_of(service, content, add_special=body.add_special, special=body.parse_special)
        if not body.with_pieces:
            return {"tokens": tokens}
        pieces = await asyncio.to_thread(lambda: [_piece(model.special_piece(token)) for token in tokens])
        return {"tokens": [{"id": i, "piece": piece} for i, piece in zip(tokens, pieces, strict=True)]}

    @routes.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, str]:
        """The text of tokens: `content` as in llama-server, `prompt` as in vLLM."""
        if len(body.tokens) > _MOST_CONTEXTS * engine.context_size:
            raise ApiError(400, "So many tokens are far beyond the context.", param="tokens")
        written = await asyncio.to_thread(lambda: b"".join(map(model.special_piece, body.tokens)))
        text = written.decode("utf-8", "replace")
        return {"content": text, "prompt": text}

    @routes.post("/apply-template")
    async def apply_template(body: ChatBody) -> dict[str, str]:
        """The prompt that a conversation becomes, as for /v1/chat/completions."""
        return {"prompt": (await conversations.render(body)).text}

    @routes.get("/tokenizer_info")
    async def tokenizer_info() -> dict[str, Any]:
        """The special tokens and the chat template, as vLLM tells them."""
        return {
            "bos_token": model.special_text(model.bos) or None,
            "bos_token_id": model.bos,
            "eos_token": model.special_text(model.eos) or None,
            "eos_token_id": model.eos,
            "pad_token": None,
            "chat_template": session.template,
            "vocab_size": model.vocab_size,
            "model_max_length": engine.context_size,
        }

    @routes.get("/lora-adapters")
    async def lora_adapters() -> list[dict[str, Any]]:
        """There are none."""
        return []

    for (method, path), message in _MISSING.items():
        routes.add_api_route(path, _refusal(message), methods=[method], include_in_schema=False)
    return routes


def _refusal(message: str) -> Callable[[], Awaitable[None]]:
    async def refuse() -> None:
        raise ApiError(501, message)

    return refuse


def _piece(written: bytes) -> str | list[int]:
    """What a token is written with: text, or bytes where it is a part of a character."""
    try:
        return written.decode()
    except UnicodeDecodeError:
        return list(written)


def _progress(running: Running | None) -> dict[str, Any]:
    """What a slot says of the request that it has."""
    if running is None:
        return {"is_processing": False}
    predicted, limit = running.predicted, running.request.sampling.n_predict
    next_token = {
        "has_next_token": running.phase is not Phase.DONE,
        "n_remain": -1 if limit < 0 else max(0, limit - predicted),
        "n_decoded": predicted,
    }
    return {
        "is_processing": True,
        "id_task": running.id,
        "n_prompt_tokens": len(running.request.prompt),
        "n_prompt_tokens_cache": running.stats.cached_tokens,
        "next_token": [next_token],
    }
