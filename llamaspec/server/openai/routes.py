"""All of OpenAI's routes in one router."""

from fastapi import APIRouter

from llamaspec.server.openai import chat, completions, models
from llamaspec.server.openai.chat import Conversations
from llamaspec.server.service import Service


def router(service: Service, conversations: Conversations) -> APIRouter:
    routes = APIRouter()
    for part in (models.router(service), chat.router(service, conversations), completions.router(service)):
        routes.include_router(part)
    return routes
