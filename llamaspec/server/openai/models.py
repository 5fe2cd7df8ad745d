"""GET /v1/models: the one model that is served."""

from typing import Any

from fastapi import APIRouter

from llamaspec.server.problems import ApiError
from llamaspec.server.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["OpenAI"])

    @routes.get("/v1/models", summary="List models")
    @routes.get("/models", include_in_schema=False)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service)]}

    @routes.get("/v1/models/{model:path}", summary="Describe a model")
    async def model(model: str) -> dict[str, Any]:
        if model not in service.names:
            message = "There is no model of that name: GET /v1/models tells the name of the one there is."
            raise ApiError(404, message, param="model", code="model_not_found")
        return _model(service)

    return routes


def _model(service: Service) -> dict[str, Any]:
    """OpenAI's object, and in `meta` what llama-server tells, with the draft model beside."""
    loaded = service.session.loaded
    facts, draft = loaded.main_facts, loaded.draft_facts
    return {
        "id": service.model_id,
        "aliases": list(service.names),
        "object": "model",
        "created": int(service.started),
        "owned_by": "llamaspec",
        "meta": {
            "n_vocab": loaded.main.vocab_size,
            "n_ctx": loaded.engine.context_size,
            "n_ctx_train": facts.context_train,
            "n_embd": facts.embedding,
            "n_params": facts.parameters,
            "size": facts.file_bytes,
            "quantisation": facts.quantisation,
            "draft": None if draft is None else {"n_params": draft.parameters, "size": draft.file_bytes},
        },
    }
