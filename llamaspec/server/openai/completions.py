"""POST /v1/completions."""

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from starlette.responses import Response

from llamaspec.server.answers import text_of_tokens
from llamaspec.server.openai.answering import TEXT, check_count, constraint, requests_for, respond
from llamaspec.server.openai.bodies import CompletionBody
from llamaspec.server.openai.choices import TextChoice
from llamaspec.server.service import Service


def router(service: Service) -> APIRouter:
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/completions", summary="Go on from texts")
    async def complete(body: CompletionBody, http: HttpRequest) -> Response:
        check_count(service, len(body.prompts), body.candidates, "n" if body.best_of is None else "best_of")
        main = service.session.loaded.main
        grammar = await constraint(service, body)
        judged = body.candidates > body.n
        rows = []
        for number, prompt in enumerate(body.prompts):
            tokens = await service.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
            requests = requests_for(
                service,
                body,
                tokens,
                body.candidates,
                grammar=grammar,
                logprobs=0 if judged and body.logprobs is None else body.logprobs,
                prompt_logprobs=body.logprobs if body.echo else None,
            )
            echo = (prompt if isinstance(prompt, str) else text_of_tokens(tokens, main)) if body.echo else ""
            rows.append(
                [
                    TextChoice(
                        number * body.n + index,
                        request,
                        main,
                        logprobs=body.logprobs is not None,
                        tell_details=body.token_details,
                        echo=echo,
                    )
                    for index, request in enumerate(requests)
                ]
            )
        return await respond(service, http, TEXT, body, rows)

    return routes
