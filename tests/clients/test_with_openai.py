"""OpenAI's own library."""

import asyncio
import json
import math
from typing import Any

import pytest
from client_help import (
    ABOUT_ANNA,
    ABOUT_ZOG,
    COUNTED,
    COUNTING,
    FIBONACCI,
    PATIENCE,
    TOOL_USER,
    Person,
    Served,
    capital_of,
    check_anna,
    check_capital,
    client_library,
)

openai = client_library("openai")
pytestmark = pytest.mark.model

TOOL = {
    "type": "function",
    "function": {
        "name": "capital_of",
        "description": capital_of.__doc__,
        "parameters": {
            "type": "object",
            "properties": {"planet": {"type": "string"}},
            "required": ["planet"],
        },
    },
}


def asked(text: str, system: str | None = None) -> list[dict[str, Any]]:
    user = {"role": "user", "content": text}
    return [user] if system is None else [{"role": "system", "content": system}, user]


@pytest.fixture
def client(served: Served):
    with openai.OpenAI(base_url=served.openai_url, api_key="none", timeout=PATIENCE, max_retries=0) as client:
        yield client


def test_models(client, served: Served) -> None:
    assert [model.id for model in client.models.list()] == [served.model]
    assert client.models.retrieve(served.model).object == "model"
    with pytest.raises(openai.NotFoundError, match="no model of that name"):
        client.models.retrieve("another")


def test_chat(client, served: Served) -> None:
    answer = client.chat.completions.create(model=served.model, messages=asked(COUNTING), max_tokens=60)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", COUNTED)
    assert choice.finish_reason == "stop"
    assert answer.model == served.model
    usage, timings = answer.usage, answer.model_extra["timings"]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens == timings["predicted_n"]
    accepted = usage.completion_tokens_details.accepted_prediction_tokens
    assert 0 < accepted == timings["draft_n_accepted"] <= timings["draft_n"]


def test_chat_without_drafts(client, served: Served) -> None:
    answer = client.chat.completions.create(
        model=served.model,
        messages=asked(COUNTING),
        max_completion_tokens=8,
        extra_body={"speculative": {"mode": "off"}},
    )
    assert answer.choices[0].finish_reason == "length"
    assert COUNTED.startswith(answer.choices[0].message.content)
    assert answer.usage.completion_tokens == 8
    details = answer.usage.completion_tokens_details
    assert (details.accepted_prediction_tokens, details.rejected_prediction_tokens) == (0, 0)


def test_stream_with_usage(client, served: Served) -> None:
    stream = client.chat.completions.create(
        model=served.model,
        messages=asked(COUNTING),
        max_tokens=60,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    choices = [chunk.choices[0] for chunk in chunks]
    assert "".join(choice.delta.content or "" for choice in choices) == COUNTED
    assert choices[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert last.usage.completion_tokens == last.model_extra["timings"]["predicted_n"] > 10


def test_several_at_once(served: Served) -> None:
    """Twice as many as there are slots."""
    words = ("apple", "river", "window", "candle")

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=served.openai_url, api_key="none", timeout=PATIENCE, max_retries=0
        ) as client:
            ask = client.chat.completions.create
            answers = await asyncio.gather(
                *(
                    ask(model=served.model, messages=asked(f"Say only: {word}"), max_tokens=5)
                    for word in words
                )
            )
        return [answer.choices[0].message.content for answer in answers]

    for word, answer in zip(words, asyncio.run(ask_all()), strict=True):
        assert word in answer.lower()


def test_stop(client, served: Served) -> None:
    answer = client.chat.completions.create(
        model=served.model, messages=asked(COUNTING), max_tokens=60, stop=["never", ", 6"]
    )
    assert answer.choices[0].message.content == "1, 2, 3, 4, 5"
    assert answer.choices[0].finish_reason == "stop"


def test_tools_round_trip(client, served: Served) -> None:
    messages = asked(ABOUT_ZOG, TOOL_USER)
    answer = client.chat.completions.create(
        model=served.model, messages=messages, tools=[TOOL], max_tokens=60
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.function.name == "capital_of"
    result = capital_of(**json.loads(call.function.arguments))
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    answer = client.chat.completions.create(
        model=served.model, messages=messages, tools=[TOOL], max_tokens=60
    )
    assert answer.choices[0].finish_reason == "stop"
    check_capital(answer.choices[0].message.content)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "capital_of"}}])
def test_streamed_tool_call(client, served: Served, choice: Any) -> None:
    with client.chat.completions.stream(
        model=served.model,
        messages=asked(ABOUT_ZOG, TOOL_USER),
        tools=[TOOL],
        tool_choice=choice,
        parallel_tool_calls=False,
        max_tokens=60,
    ) as stream:
        pieces = [
            event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"
        ]
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls
    assert call.function.name == "capital_of"
    assert "".join(pieces) == call.function.arguments
    assert len(pieces) > 1
    assert json.loads(call.function.arguments) == {"planet": "Zog"}


def test_json_schema(client, served: Served) -> None:
    answer = client.chat.completions.parse(
        model=served.model, messages=asked(ABOUT_ANNA), response_format=Person, max_tokens=60
    )
    assert answer.choices[0].finish_reason == "stop"
    check_anna(answer.choices[0].message.parsed)


def test_json_object(client, served: Served) -> None:
    answer = client.chat.completions.create(
        model=served.model,
        messages=asked(ABOUT_ANNA),
        response_format={"type": "json_object"},
        max_tokens=60,
    )
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_logprobs(client, served: Served) -> None:
    answer = client.chat.completions.create(
        model=served.model, messages=asked(COUNTING), max_tokens=60, logprobs=True, top_logprobs=3
    )
    (choice,) = answer.choices
    entries = choice.logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == choice.message.content
    assert len(entries) == answer.usage.completion_tokens - 1  # the last one ends the answer, and is no text
    for entry in entries:
        best = [top.logprob for top in entry.top_logprobs]
        assert len(best) == 3
        assert best == sorted(best, reverse=True)
        assert max(best) <= 0.0
        assert math.fsum(map(math.exp, best)) <= 1.0 + 1e-6
        assert (entry.token, entry.logprob) == (entry.top_logprobs[0].token, best[0])  # it is greedy
    assert math.fsum(entry.logprob for entry in entries) > -3.0  # counting is all but certain


def test_logprobs_are_the_same_with_and_without_drafts(client, served: Served) -> None:
    def logprobs(mode: str) -> list[float]:
        answer = client.chat.completions.create(
            model=served.model,
            messages=asked(COUNTING),
            max_tokens=20,
            logprobs=True,
            extra_body={"speculative": {"mode": mode}, "cache_prompt": False},
        )
        assert answer.choices[0].message.content == COUNTED[: len(answer.choices[0].message.content)]
        return [entry.logprob for entry in answer.choices[0].logprobs.content]

    assert logprobs("fixed") == pytest.approx(logprobs("off"), abs=0.2)


def test_seed(client, served: Served) -> None:
    def drawn(seed: int) -> str:
        answer = client.chat.completions.create(
            model=served.model,
            messages=asked("Invent a name for a sailing boat."),
            temperature=2.0,
            top_p=1.0,
            seed=seed,
            max_tokens=12,
            extra_body={"top_k": 0, "cache_prompt": False},
        )
        return answer.choices[0].message.content

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in (1, 2, 3)}) > 1


def test_completion_with_echo(client, served: Served) -> None:
    answer = client.completions.create(
        model=served.model, prompt=FIBONACCI, max_tokens=12, echo=True, logprobs=2
    )
    (choice,) = answer.choices
    assert choice.text.startswith(FIBONACCI + " fibonacci(n")
    told = choice.logprobs
    assert "".join(told.tokens) == choice.text
    assert len(told.tokens) == answer.usage.total_tokens
    for token, offset in zip(told.tokens, told.text_offset, strict=True):
        assert choice.text.startswith(token, offset)
    assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None)
    for token, logprob, top in zip(
        told.tokens[1:], told.token_logprobs[1:], told.top_logprobs[1:], strict=True
    ):
        assert logprob <= 0.0
        assert top[token] == logprob
        assert len(top) in (2, 3)
        assert math.fsum(map(math.exp, top.values())) <= 1.0 + 1e-6


def test_prompt_alone_is_judged(client, served: Served) -> None:
    answer = client.completions.create(
        model=served.model, prompt="One, two, three", max_tokens=0, echo=True, logprobs=0
    )
    (choice,) = answer.choices
    assert choice.text == "One, two, three"
    assert answer.usage.completion_tokens == 0
    assert len(choice.logprobs.token_logprobs) == answer.usage.prompt_tokens
    assert choice.logprobs.token_logprobs[0] is None


def test_completions_of_several_prompts_streamed(client, served: Served) -> None:
    prompts = ["1, 2, 3, 4,", "Monday, Tuesday, Wednesday,"]
    stream = client.completions.create(
        model=served.model,
        prompt=prompts,
        n=2,
        max_tokens=5,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    texts = dict.fromkeys(range(4), "")
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts[0] == texts[1]
    assert texts[0].startswith(" 5, ")
    assert texts[2] == texts[3]
    assert texts[2].startswith(" Thursday")
    assert last.usage.completion_tokens == 20


def test_errors(client, served: Served) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="temperature") as refused:
        create(model=served.model, messages=asked("Hi"), temperature=-1)
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="context"):
        create(model=served.model, messages=asked("word " * 6000))
    with pytest.raises(openai.BadRequestError, match="response_format"):
        schema = {"name": "broken", "schema": {"type": "nonsense"}}
        response_format = {"type": "json_schema", "json_schema": schema}
        create(model=served.model, messages=asked("Hi"), response_format=response_format)
