"""langchain-openai: its chat model and its plain one."""

import asyncio
import math

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

langchain_openai = client_library("langchain_openai")
messages = client_library("langchain_core.messages")
tools = client_library("langchain_core.tools")
pytestmark = pytest.mark.model


@pytest.fixture
def chat(served: Served):
    return langchain_openai.ChatOpenAI(
        model=served.model,
        base_url=served.openai_url,
        api_key="none",
        timeout=PATIENCE,
        max_retries=0,
        max_tokens=60,
        stream_usage=True,
    )


def texts_of(served: Served, **options: object):
    """Its model for plain completions, of four tokens."""
    return langchain_openai.OpenAI(
        model=served.model,
        base_url=served.openai_url,
        api_key="none",
        timeout=PATIENCE,
        max_retries=0,
        max_tokens=4,
        temperature=0,
        **options,
    )


def test_chat(chat, served: Served) -> None:
    answer = chat.invoke([messages.SystemMessage("You count."), messages.HumanMessage(COUNTING)])
    assert answer.content == COUNTED
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == served.model
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_stream_with_usage(chat) -> None:
    chunks = list(chat.stream(COUNTING))
    assert "".join(chunk.content for chunk in chunks) == COUNTED
    (usage,) = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert usage["output_tokens"] > 10
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_batch(chat) -> None:
    words = ["apple", "river", "window"]
    answers = asyncio.run(chat.abatch([f"Say only: {word}" for word in words], max_tokens=5))
    for word, answer in zip(words, answers, strict=True):
        assert word in answer.content.lower()


def test_stop(chat) -> None:
    assert chat.invoke(COUNTING, stop=[", 6"]).content == "1, 2, 3, 4, 5"


@pytest.mark.parametrize("choice", ["auto", "capital_of"])
def test_tools_round_trip(chat, choice: str) -> None:
    tool = tools.tool(capital_of)
    said = [messages.SystemMessage(TOOL_USER), messages.HumanMessage(ABOUT_ZOG)]
    bound = chat.bind_tools([tool], tool_choice=choice, parallel_tool_calls=False)
    asking = bound.invoke(said)
    (call,) = asking.tool_calls
    said += [asking, tool.invoke(call)]
    check_capital(chat.bind_tools([tool]).invoke(said).content)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(chat, method: str) -> None:
    check_anna(chat.with_structured_output(Person, method=method).invoke(ABOUT_ANNA))


def test_logprobs(chat) -> None:
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(COUNTING)
    told = answer.response_metadata["logprobs"]["content"]
    assert "".join(entry["token"] for entry in told) == COUNTED
    assert all(entry["logprob"] == entry["top_logprobs"][0]["logprob"] <= 0.0 for entry in told)


def test_completions(served: Served) -> None:
    texts = texts_of(served, n=2, best_of=2)
    result = texts.generate(["1, 2, 3, 4,", "Monday, Tuesday, Wednesday,"])
    starts = [[generation.text for generation in row] for row in result.generations]
    assert [len(row) for row in starts] == [2, 2]
    assert all(text.startswith(" 5,") for text in starts[0])
    assert all(text.startswith(" Thursday") for text in starts[1])
    assert result.llm_output["token_usage"]["completion_tokens"] == 16


def test_echo(served: Served) -> None:
    text = texts_of(served, logprobs=1, model_kwargs={"echo": True})
    ((generation,),) = text.generate(["1, 2, 3, 4,"]).generations
    assert generation.text.startswith("1, 2, 3, 4, 5")
    logprobs = generation.generation_info["logprobs"]["token_logprobs"]
    assert logprobs[0] is None
    assert -20.0 < math.fsum(logprobs[1:]) <= 0.0
