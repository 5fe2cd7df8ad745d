"""Grammars for tool calls over the real llama.cpp: what they let a model write, and what they don't."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gguf_files import tiny_llama

from llamaspec.errors import GrammarError
from llamaspec.native.grammar import NativeGrammar, schema_to_grammar
from llamaspec.native.model import Model
from llamaspec.server.tools import FORMATS, ToolFormat, call_grammar, read_tools

BY_NAME = {tool_format.name: tool_format for tool_format in FORMATS}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model(tiny_llama(tmp_path_factory.mktemp("models") / "model.gguf")) as model:
        yield model


def tool(
    name: str, properties: dict[str, Any] | None = None, strict: bool = False, **more: Any
) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name, "strict": strict}
    if properties is not None:
        required = [key for key in properties if key != "days"]
        function["parameters"] = {"type": "object", "properties": properties, "required": required, **more}
    return {"type": "function", "function": function}


CLOCK = tool("clock")
PLACE = {"$defs": {"place": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}}
OTHER = {"$defs": {"place": {"type": "array", "items": {"type": "integer"}}}}
WEATHER = tool("weather", {"city": {"type": "string"}, "days": {"type": "integer"}})
GO = tool("go", {"to": {"$ref": "#/$defs/place"}}, **PLACE)
SEE = tool("see", {"to": {"$ref": "#/$defs/place"}}, **OTHER)


def accepts(model: Model, grammar: str, text: str) -> bool:
    """Whether a grammar lets just this text be the whole answer."""
    state = NativeGrammar(model, grammar)
    for token in model.tokenize(text):
        if not state.allowed(np.array([token]))[0]:
            return False
        state.accept(token)
    return bool(state.allowed(np.array(list(model.eog_tokens)))[0])


def grammar_for(tool_format: ToolFormat, *tools: dict[str, Any], **fields: Any) -> str:
    checked = read_tools({"tools": list(tools), "tool_choice": "required", **fields})
    grammar = call_grammar(checked, tool_format, schema_to_grammar)
    assert grammar is not None
    return grammar


def answer(tool_format: ToolFormat, *calls: tuple[str, Any]) -> str:
    """Calls as the format has them, with JSON arguments, or tags where it has those."""
    form = tool_format.forms[0]

    def arguments(given: dict[str, Any]) -> str:
        if not tool_format.xml:
            return json.dumps(given)
        told = (
            (name, value if isinstance(value, str) else json.dumps(value)) for name, value in given.items()
        )
        return "".join(f"<parameter={n}>\n{v}\n</parameter>\n" for n, v in told) + "</function>"

    each = [f"{form.before}{name}{form.after}{arguments(given)}{form.tails[0]}" for name, given in calls]
    return (tool_format.begin + tool_format.between.join(each) + tool_format.end).replace(
        "#########", "abcd12345"
    )


formats = pytest.mark.parametrize("tool_format", FORMATS, ids=lambda tool_format: tool_format.name)


@formats
def test_a_forced_answer_is_a_call_by_the_schema(llama: Model, tool_format: ToolFormat) -> None:
    grammar = grammar_for(tool_format, WEATHER, CLOCK, GO, SEE)
    for call in (
        ("weather", {"city": "a]"}),
        ("weather", {"city": "<b", "days": 3}),
        ("clock", {}),
        ("go", {"to": {"x": 1}}),
        ("see", {"to": [1, 2]}),
    ):
        assert accepts(llama, grammar, answer(tool_format, call))
    for call in (
        ("weather", {}),
        ("weather", {"city": "a", "days": "x"}),
        ("clock", {"city": "a"}),
        ("go", {"to": [1, 2]}),
        ("see", {"to": {"x": 1}}),
        ("walk", {}),
    ):
        assert not accepts(llama, grammar, answer(tool_format, call))
    for text in (
        "",
        "Hello",
        answer(tool_format, ("clock", {})) + " so",
        "So " + answer(tool_format, ("clock", {})),
    ):
        assert not accepts(llama, grammar, text)


@formats
def test_several_calls_only_in_parallel(llama: Model, tool_format: ToolFormat) -> None:
    two = answer(tool_format, ("clock", {}), ("weather", {"city": "a"}))
    assert accepts(llama, grammar_for(tool_format, WEATHER, CLOCK), two) == (not tool_format.single)
    assert not accepts(llama, grammar_for(tool_format, WEATHER, CLOCK, parallel_tool_calls=False), two)


@formats
def test_a_named_function_is_the_only_one(llama: Model, tool_format: ToolFormat) -> None:
    named = {"type": "function", "function": {"name": "clock"}}
    grammar = grammar_for(tool_format, WEATHER, CLOCK, tool_choice=named)
    assert accepts(llama, grammar, answer(tool_format, ("clock", {})))
    assert not accepts(llama, grammar, answer(tool_format, ("weather", {"city": "a"})))


@formats
def test_a_strict_function_leaves_text_free_and_binds_calls(llama: Model, tool_format: ToolFormat) -> None:
    strict = tool("weather", {"city": {"type": "string"}}, strict=True, additionalProperties=False)
    grammar = grammar_for(tool_format, strict, CLOCK, tool_choice="auto")
    for text in (
        "",
        "Hello <b> [1] {x}",
        tool_format.marker[:-1],
        "a\nb",
        answer(tool_format, ("clock", {})),
    ):
        assert accepts(llama, grammar, text)
    assert accepts(llama, grammar, answer(tool_format, ("weather", {"city": "a"})))
    assert not accepts(llama, grammar, answer(tool_format, ("weather", {"town": "a"})))
    assert not accepts(llama, grammar, answer(tool_format, ("walk", {})))
    if tool_format.marker:
        behind = "<<[[Let me see. " + answer(tool_format, ("clock", {}))
        assert accepts(llama, grammar, behind)
        assert not accepts(llama, grammar, f"So {tool_format.marker} it is")
    else:
        assert not accepts(llama, grammar, '{"temperature": 3}')


@formats
def test_without_need_there_is_no_grammar(tool_format: ToolFormat) -> None:
    for choice in ("auto", "none"):
        fields = read_tools({"tools": [WEATHER], "tool_choice": choice})
        assert call_grammar(fields, tool_format, schema_to_grammar) is None


@formats
def test_what_a_grammar_cannot_keep_is_refused_for_strict_functions_only(
    llama: Model, tool_format: ToolFormat
) -> None:
    properties = {"odd": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}}
    with pytest.raises(GrammarError, match="arguments of 'f'"):
        grammar_for(tool_format, tool("f", properties, strict=True))
    grammar = grammar_for(tool_format, tool("f", properties), CLOCK)
    assert accepts(llama, grammar, answer(tool_format, ("f", {"odd": [1, 1]})))
    assert accepts(llama, grammar, answer(tool_format, ("clock", {})))


@pytest.mark.parametrize("value", [{"type": "string", "pattern": "^a$"}, {"type": ["string", "null"]}, {}])
def test_tags_keep_only_plain_types_strictly(llama: Model, value: dict[str, Any]) -> None:
    tags = BY_NAME["qwen-xml"]
    with pytest.raises(GrammarError, match="plain type"):
        grammar_for(tags, tool("f", {"a": value}, strict=True))
    assert accepts(llama, grammar_for(tags, tool("f", {"a": value})), answer(tags, ("f", {"a": "b"})))


@pytest.mark.parametrize(
    "parameters", [{"anyOf": [{}]}, {"required": ["b"]}, {"properties": {"<a>": {"type": "string"}}}]
)
def test_tags_refuse_what_they_cannot_say(parameters: dict[str, Any]) -> None:
    function = {"name": "f", "strict": True, "parameters": parameters}
    with pytest.raises(GrammarError):
        grammar_for(BY_NAME["qwen-xml"], {"type": "function", "function": function})


def test_tagged_choices_are_written_plain(llama: Model) -> None:
    tags = BY_NAME["qwen-xml"]
    grammar = grammar_for(tags, tool("f", {"unit": {"type": "string", "enum": ["°C", '"F"']}}, strict=True))
    assert accepts(llama, grammar, answer(tags, ("f", {"unit": '"F"'})))
    assert not accepts(llama, grammar, answer(tags, ("f", {"unit": "K"})))


def test_names_that_a_grammar_uses_itself_do_no_harm(llama: Model) -> None:
    names = ("root", "calls", "target", "text-0", "string", "0", "args0-root", "é", "space", "char")
    tools = [tool(f"f{i}", {name: {"type": "boolean"} for name in names[i:]}) for i in range(3)]
    grammar = grammar_for(BY_NAME["hermes"], *tools)
    for i in range(3):
        given = json.dumps(dict.fromkeys(names[i:], True), ensure_ascii=False)
        text = f'<tool_call>\n{{"name": "f{i}", "arguments": {given}}}\n</tool_call>'
        assert accepts(llama, grammar, text)


def test_rules_that_tools_have_in_common_are_written_once() -> None:
    tools = [tool(f"f{i}", {"any": {"type": "object"}}) for i in range(20)]
    grammar = grammar_for(BY_NAME["hermes"], *tools)
    assert sum("string ::=" in line for line in grammar.splitlines()) == 1
