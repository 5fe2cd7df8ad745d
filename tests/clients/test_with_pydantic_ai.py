"""pydantic-ai, over OpenAI's chat API."""

import asyncio

import pytest
from client_help import (
    ABOUT_ANNA,
    ABOUT_ZOG,
    COUNTED,
    COUNTING,
    PATIENCE,
    TOOL_USER,
    Person,
    Served,
    capital_of,
    check_anna,
    check_capital,
    client_library,
)

pydantic_ai = client_library("pydantic_ai")
openai_models = client_library("pydantic_ai.models.openai")
openai_provider = client_library("pydantic_ai.providers.openai")
pytestmark = pytest.mark.model


@pytest.fixture
def model(served: Served):
    provider = openai_provider.OpenAIProvider(base_url=served.openai_url, api_key="none")
    settings = {"max_tokens": 60, "timeout": PATIENCE}
    return openai_models.OpenAIChatModel(served.model, provider=provider, settings=settings)


def test_chat(model) -> None:
    answer = pydantic_ai.Agent(model, instructions="You count.").run_sync(COUNTING)
    assert answer.output == COUNTED
    assert answer.usage.requests == 1
    assert answer.usage.output_tokens > 10
    assert answer.usage.details["accepted_prediction_tokens"] > 0


def test_stream_with_usage(model) -> None:
    async def read() -> tuple[list[str], int]:
        async with pydantic_ai.Agent(model).run_stream(COUNTING) as answer:
            return [text async for text in answer.stream_text(delta=True)], answer.usage.output_tokens

    pieces, tokens = asyncio.run(read())
    assert "".join(pieces) == COUNTED
    assert len(pieces) > 1
    assert tokens > 10


def test_stop(model) -> None:
    agent = pydantic_ai.Agent(model, model_settings={"stop_sequences": [", 6"]})
    assert agent.run_sync(COUNTING).output == "1, 2, 3, 4, 5"


def test_tools_round_trip(model) -> None:
    tool = pydantic_ai.Tool(capital_of)
    answer = pydantic_ai.Agent(model, instructions=TOOL_USER, tools=[tool]).run_sync(ABOUT_ZOG)
    check_capital(answer.output)
    assert answer.usage.tool_calls == 1


@pytest.mark.parametrize("how", ["ToolOutput", "NativeOutput", "PromptedOutput"])
def test_output_of_a_type(model, how: str) -> None:
    agent = pydantic_ai.Agent(model, output_type=getattr(pydantic_ai, how)(Person))
    check_anna(agent.run_sync(ABOUT_ANNA).output)


def test_logprobs(model) -> None:
    agent = pydantic_ai.Agent(model, model_settings={"openai_logprobs": True, "openai_top_logprobs": 2})
    told = agent.run_sync(COUNTING).response.provider_details["logprobs"]
    assert "".join(entry["token"] for entry in told) == COUNTED
    assert all(entry["logprob"] == entry["top_logprobs"][0]["logprob"] <= 0.0 for entry in told)
