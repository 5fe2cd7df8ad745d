"""What is refused is refused with a 400 that names the field, and never answered by guessing."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai_app import CHAT, HELLO, TEXT, chat, refusal, tiny_service

from llamaspec.server.service import Service

FUNCTION = {"type": "function", "function": {"name": "f"}}
USER = {"role": "user", "content": "x"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_service(tmp_path_factory.mktemp("models")) as served:
        yield served
        assert chat(served, max_tokens=1)["choices"], "it does not answer any more"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("foo", 1),
        ("prediction", {"type": "content", "content": "x"}),
        ("functions", []),
        ("audio", {}),
        ("modalities", ["text", "audio"]),
        ("store", True),
        ("service_tier", "priority"),
        ("temperature", -1),
        ("temperature", "hot"),
        ("top_p", 1.5),
        ("presence_penalty", 3),
        ("seed", 1 << 70),
        ("n", 0),
        ("n", 17),
        ("max_tokens", -2),
        ("max_tokens", 10**400),
        ("stop", 5),
        ("stop", ""),
        ("stop", ["a"] * 17),
        ("logprobs", 1),
        ("top_logprobs", 2),
        ("logit_bias", {"a": 1}),
        ("logit_bias", {"99999999": 1}),
        ("logit_bias", {str(token): 1 for token in range(5000)}),
        ("stream_options", {"include_usage": True}),
        ("messages", "x"),
        ("messages", []),
        ("messages", [{"role": "assistant", "content": "alone"}]),
        ("response_format", {}),
        ("response_format", {"type": "sound"}),
        ("response_format", {"type": "json_object", "schema": {"type": "hiccup"}}),
        ("json_schema", {"type": "hiccup"}),
        ("grammar", "root ::= this is (not"),
        ("chat_template_kwargs", 3),
        ("reasoning_effort", "low"),
        ("add_generation_prompt", False),
        ("continue_final_message", True),
        ("tools", 3),
        ("tool_choice", "required"),
        ("parallel_tool_calls", "yes"),
        ("suffix", "x"),
    ],
)
def test_a_chat_names_its_field(service: Service, field: str, wrong: Any) -> None:
    error = refusal(service, CHAT, {"messages": HELLO, field: wrong})
    assert error["param"] == field
    assert field in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].endswith(".") and len(error["message"]) < 700


@pytest.mark.parametrize(
    ("place", "body"),
    [
        ("messages[0].content", {"messages": [{"role": "user"}]}),
        ("messages[0].content", {"messages": [{"role": "user", "content": None}]}),
        ("messages[0].content", {"messages": [{"role": "system", "content": 5}]}),
        ("messages[1]", {"messages": [USER, {"role": "function", "content": "x"}]}),
        ("messages[1]", {"messages": [USER, {}]}),
        ("messages[0]", {"messages": [{"role": "assistant"}, USER]}),
        ("messages[0].content[0]", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ("messages[0].content[1].text", {"messages": [{**USER, "content": [
            {"type": "text", "text": "a"}, {"type": "text"}]}]}),
        ("messages[0].weight", {"messages": [{**USER, "weight": 1}]}),
        ("response_format.json_schema.schema", {"messages": [USER], "response_format": {
            "type": "json_schema", "json_schema": {"name": "x"}}}),
        ("stream_options.foo", {"messages": [USER], "stream": True, "stream_options": {"foo": 1}}),
        ("speculative.mode", {"messages": [USER], "speculative": {"mode": "fast"}}),
        ("chat_template_kwargs.messages", {"messages": [USER], "chat_template_kwargs": {"messages": 1}}),
        ("tools[0].function.name", {"messages": [USER], "tools": [{"type": "function", "function": {}}]}),
    ],
)  # fmt: skip
def test_a_field_within_a_field_is_named_too(service: Service, place: str, body: dict[str, Any]) -> None:
    error = refusal(service, CHAT, body)
    assert error["param"] == place
    assert place in error["message"]


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("prompt", {}),
        ("prompt", {"prompt": None}),
        ("prompt", {"prompt": []}),
        ("prompt[0]", {"prompt": [[]]}),
        ("prompt[1]", {"prompt": [1, "x"]}),
        ("prompt[0]", {"prompt": [True]}),
        ("prompt", {"prompt": 5}),
        ("suffix", {"prompt": "a", "suffix": "b"}),
        ("logprobs", {"prompt": "a", "logprobs": True}),
        ("logprobs", {"prompt": "a", "logprobs": 21}),
        ("best_of", {"prompt": "a", "n": 3, "best_of": 2}),
        ("best_of", {"prompt": "a", "best_of": 2, "stream": True}),
        ("messages", {"prompt": "a", "messages": []}),
    ],
)
def test_a_completion_names_its_field(service: Service, field: str, body: dict[str, Any]) -> None:
    assert refusal(service, TEXT, body)["param"] == field


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ""},
        {"prompt": [1 << 30]},
        {"prompt": "a", "speculative": {"mode": "fixed", "draft_min": 9, "draft_max": 1}},
        {"prompt": "a", "speculative": {"draft_max": 64}},
        {"prompt": "a", "speculative": {"mode": "auto"}},
        {"prompt": "a", "speculative": {"drafters": ["corpus"]}},
    ],
)
def test_what_the_engine_can_t_do_is_refused(service: Service, body: dict[str, Any]) -> None:
    assert refusal(service, TEXT, body)["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"nul",
        b'"x"',
        b"[" * 100_000,
        b'{"prompt": "a", "n": ' + b"1" * 5000 + b"}",
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": Infinity}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "\\ud800": 1}',
        b'{"prompt": "a", "logit_bias": {"\\ud800": 1}}',
        b'{"prompt": "a", "response_format": {"type": "\\ud800"}}',
        b'{"prompt": "a", "json_schema": {"\\ud800": NaN}}',
        b"\xff\xfe",
    ],
)
def test_what_is_hardly_json_is_refused(service: Service, body: bytes) -> None:
    assert refusal(service, TEXT, body)["message"]


@pytest.mark.parametrize("field", ["grammar", "json_schema"])
def test_two_constraints_can_t_both_be_kept(service: Service, field: str) -> None:
    wanted = {"grammar": 'root ::= "a"', "json_schema": {}}[field]
    body = {"messages": HELLO, "response_format": {"type": "json_object"}, field: wanted}
    assert refusal(service, CHAT, body)["param"] == "response_format"


def test_a_template_without_tools_refuses_them(service: Service) -> None:
    assert "template" in refusal(service, CHAT, {"messages": HELLO, "tools": [FUNCTION]})["message"]


def test_complaints_about_many_values_are_one(service: Service) -> None:
    """Each would take a microsecond and a kilobyte."""
    many = json.dumps({"messages": [{"role": "user", "content": [1] * 200}] * 4000}).encode()
    assert refusal(service, CHAT, many)["param"] == "messages[0].content[0]"
