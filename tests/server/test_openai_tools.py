"""Tool calls through the whole server: a tiny model can write nothing but calls when it is made to."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai_app import CHAT, HELLO, chat, refusal, streamed, tiny_service

from llamaspec.server.service import Service

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool.function.name }}\n{% endfor %}"
    "<|im_end|>\n{% endif %}{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": "Does it.", "parameters": schema}}


TOOLS = [tool("paint", colour={"enum": ["red", "blue"]}), tool("wait", long={"type": "boolean"})]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_service(tmp_path_factory.mktemp("models"), template=TEMPLATE) as served:
        yield served


def checked(call: dict[str, Any]) -> str:
    """The function's name; its arguments are as the schema says."""
    assert call["type"] == "function"
    assert call["id"]
    name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
    assert (
        arguments
        in {
            "paint": [{"colour": "red"}, {"colour": "blue"}],
            "wait": [{"long": True}, {"long": False}],
        }[name]
    )
    return str(name)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "paint"}}], ids=["any", "one"]
)
def test_a_forced_call_is_sound(service: Service, choice: Any) -> None:
    asked = {
        "tools": TOOLS,
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_tokens": 200,
        "temperature": 0,
    }
    [whole] = chat(service, **asked)["choices"]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None
    [call] = whole["message"]["tool_calls"]
    assert checked(call) == "paint" or choice == "required"

    choices = [chunk["choices"][0] for chunk in streamed(service, CHAT, **asked)]
    deltas = [delta for each in choices for delta in each["delta"].get("tool_calls", ())]
    assert {delta["index"] for delta in deltas} == {0}
    assert [("id" in delta, "name" in delta["function"]) for delta in deltas] == [(True, True)] + [
        (False, False)
    ] * (len(deltas) - 1)
    arguments = "".join(delta["function"]["arguments"] for delta in deltas)
    assert {"name": deltas[0]["function"]["name"], "arguments": arguments} == call["function"]
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert not any(each["delta"].get("content") for each in choices)


def test_a_free_answer_may_be_text(service: Service) -> None:
    [choice] = chat(service, tools=TOOLS, max_tokens=4, temperature=0)["choices"]
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    [silent] = chat(service, tools=TOOLS, tool_choice="none", max_tokens=4, temperature=0)["choices"]
    assert "tool_calls" not in silent["message"]


def test_a_round_trip(service: Service) -> None:
    asked = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200}
    said = chat(service, **asked)["choices"][0]["message"]
    [call] = said["tool_calls"]
    messages = [*HELLO, said, {"role": "tool", "tool_call_id": call["id"], "content": "Done."}]
    answer = chat(service, messages=messages, tools=TOOLS, max_tokens=3)
    without = chat(service, tools=TOOLS, max_tokens=3)
    assert answer["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"]
    assert chat(service, messages=messages, max_tokens=3)["choices"]
    error = refusal(service, CHAT, {"messages": [*HELLO, messages[-1]], "tools": TOOLS})
    assert "tool_call_id" in error["message"]


@pytest.mark.parametrize(
    ("field", "wanted"),
    [
        ("response_format", {"type": "json_object"}),
        ("grammar", 'root ::= "a"'),
        ("json_schema", {"type": "integer"}),
    ],
)
def test_no_other_constraint_beside_tools(service: Service, field: str, wanted: Any) -> None:
    body = {"messages": HELLO, "tools": TOOLS, field: wanted}
    assert refusal(service, CHAT, body)["param"] == field
    free = chat(service, tools=TOOLS, tool_choice="none", **{field: wanted}, max_tokens=30)
    assert free["choices"][0]["message"]["content"]


def test_a_strict_schema_that_can_t_be_kept_is_refused(service: Service) -> None:
    wrong = tool("paint", colour={"type": "hiccup"})
    wrong["function"]["strict"] = True
    error = refusal(service, CHAT, {"messages": HELLO, "tools": [wrong], "tool_choice": "required"})
    assert error["param"] == "tools"
