"""langchain-llama-cpp, which knows what llama-server tells beyond OpenAI's API."""

import asyncio
from typing import Any

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

langchain_llama_cpp = client_library("langchain_llama_cpp")
messages = client_library("langchain_core.messages")
tools = client_library("langchain_core.tools")
pytestmark = pytest.mark.model


@pytest.fixture
def chat(served: Served):
    return langchain_llama_cpp.ChatLlama(
        model=served.model, base_url=served.url, timeout=PATIENCE, max_retries=0, max_tokens=60
    )


def check_timings(timings: dict[str, Any], usage: dict[str, Any]) -> None:
    assert 0 < timings["draft_n_accepted"] <= timings["draft_n"]
    assert timings["predicted_n"] == usage["output_tokens"] > 10
    assert timings["cache_n"] + timings["prompt_n"] == usage["input_tokens"]
    assert timings["predicted_per_second"] > 0.0


def test_chat(chat) -> None:
    answer = chat.invoke(COUNTING)
    assert answer.content == COUNTED
    assert answer.response_metadata["finish_reason"] == "stop"
    check_timings(answer.response_metadata["timings"], answer.usage_metadata)


def test_stream_with_usage_and_timings(chat) -> None:
    async def gather() -> list[Any]:
        return [chunk async for chunk in chat.astream(COUNTING)]

    for chunks in (list(chat.stream(COUNTING)), asyncio.run(gather())):
        whole = sum(chunks[1:], start=chunks[0])
        assert whole.content == COUNTED
        check_timings(whole.response_metadata["timings"], whole.usage_metadata)


def test_stop(chat) -> None:
    assert chat.invoke(COUNTING, stop=[", 6"]).content == "1, 2, 3, 4, 5"


def test_grammar(chat) -> None:
    answer = chat.bind(grammar='root ::= "yes" | "no"').invoke("Is water dry? Explain.")
    assert answer.content in ("yes", "no")


def test_samplers_of_llama_cpp(chat) -> None:
    settings = {"top_k": 1, "min_p": 0.1, "repeat_penalty": 1.0, "repeat_last_n": 64, "seed": 3}
    answer = chat.bind(temperature=1.0, cache_prompt=False, **settings).invoke(COUNTING)
    assert answer.content == COUNTED
    assert answer.response_metadata["timings"]["cache_n"] == 0


def test_logprobs(chat) -> None:
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(COUNTING)
    told = answer.response_metadata["logprobs"]["content"]
    assert "".join(entry["token"] for entry in told) == COUNTED
    assert all(entry["logprob"] == entry["top_logprobs"][0]["logprob"] <= 0.0 for entry in told)


@pytest.mark.parametrize("choice", [None, "any"])
def test_tools_round_trip(chat, choice: str | None) -> None:
    tool = tools.tool(capital_of)
    said = [messages.SystemMessage(TOOL_USER), messages.HumanMessage(ABOUT_ZOG)]
    asking = chat.bind_tools([tool], tool_choice=choice, parallel_tool_calls=False).invoke(said)
    (call,) = asking.tool_calls
    said += [asking, tool.invoke(call)]
    check_capital(chat.bind_tools([tool]).invoke(said).content)


def test_streamed_tool_call(chat) -> None:
    bound = chat.bind_tools([tools.tool(capital_of)], tool_choice="any", parallel_tool_calls=False)
    chunks = list(bound.stream(ABOUT_ZOG))
    (call,) = sum(chunks[1:], start=chunks[0]).tool_calls
    assert (call["name"], call["args"]) == ("capital_of", {"planet": "Zog"})


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(chat, method: str) -> None:
    more = {} if method == "function_calling" else {"include_format_instructions": True}
    check_anna(chat.with_structured_output(Person, method=method, **more).invoke(ABOUT_ANNA))


def test_errors(chat) -> None:
    errors = langchain_llama_cpp.exceptions
    with pytest.raises(errors.LlamaInvalidRequestError, match="temperature"):
        chat.bind(temperature=-1.0).invoke("Hi")
    with pytest.raises(errors.LlamaContextOverflowError) as refused:
        chat.invoke("word " * 6000)
    assert refused.value.n_prompt_tokens > 6000
    assert refused.value.n_ctx == 4096
