"""All of OpenAI's routes in one router."""

from fastapi import APIRouter

from llamaspec.server.openai import chat, completions, models
from llamaspec.server.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter()
    for part in (models, chat, completions):
        routes.include_router(part.router(service))
    return routes
