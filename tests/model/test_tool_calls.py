"""Tool calls over a real model and its own chat template."""

import json
from collections.abc import Iterator

import pytest

from llamaspec.gguf.facts import describe
from llamaspec.gguf.shards import read_model
from llamaspec.native.grammar import schema_to_grammar
from llamaspec.server.tools import (
    ToolCallStream,
    call_grammar,
    collect,
    find_tools,
    read_tools,
    template_messages,
)
from llamaspec.session import Session, load
from llamaspec.templates import TemplateRenderer

pytestmark = pytest.mark.model

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "get_weather", "description": "Current weather of a city", "parameters": CITY}
TOOLS = [{"type": "function", "function": WEATHER}]
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}


@pytest.fixture(scope="module")
def renderer(pair) -> Iterator[TemplateRenderer]:
    template = describe(read_model(pair.main)).chat_template
    assert template is not None
    with TemplateRenderer(template) as renderer:
        yield renderer


def test_a_call_that_the_template_writes_is_read_back(renderer: TemplateRenderer) -> None:
    support = find_tools(renderer.render)
    assert (support.format.name, support.short_ids) == ("hermes", False)
    messages = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "call_2"}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
    ]
    text = renderer.render(template_messages(messages, support), tools=TOOLS)
    turn = text.partition("<|im_start|>assistant")[2].partition("<|im_end|>")[0]
    stream = ToolCallStream(support, read_tools({"tools": TOOLS}).functions)
    answer = collect([*stream.feed(turn), *stream.finish()])
    assert answer.content is None
    assert [(call.name, json.loads(call.arguments)) for call in answer.calls] == [
        ("get_weather", {"city": "Paris"})
    ] * 2
    assert "<tool_response>\nRain\n</tool_response>" in text


@pytest.fixture(scope="module")
def session(pair) -> Iterator[Session]:
    settings = {"speculation": {"mode": "off"}, "sampling": {"temperature": 0.0, "n_predict": 60}}
    with load(main=str(pair.main), settings=settings) as session:
        yield session


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_the_model_calls_a_tool(session: Session, renderer: TemplateRenderer, choice: str) -> None:
    fields = read_tools({"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False})
    support = find_tools(renderer.render)
    prompt = renderer.render([QUESTION], tools=fields.as_given)
    grammar = call_grammar(fields, support.format, schema_to_grammar)
    stream = ToolCallStream(support, fields.functions, parallel=False, exact=fields.constrained)
    deltas = []
    for event in session.complete(prompt, grammar=grammar):
        deltas += stream.feed(event.text)
        if stream.done:
            break
    answer = collect([*deltas, *stream.finish()])
    assert stream.finish_reason == "tool_calls"
    (call,) = answer.calls
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
