"""Tool calls: what requests may ask, which format a template has, what is read out of a model's text."""

import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamaspec.errors import UsageError
from llamaspec.server.tools import (
    FORMATS,
    ArgumentsDelta,
    CallBegin,
    CallEnd,
    ContentDelta,
    Delta,
    ToolAnswer,
    ToolCallStream,
    ToolFields,
    ToolSupport,
    collect,
    find_tools,
    read_tools,
    template_messages,
)
from llamaspec.templates import TemplateRenderer

SUPPORT = {tool_format.name: ToolSupport(tool_format) for tool_format in FORMATS}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "detail": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "hourly": {"type": "boolean"},
                "where": {"$ref": "#/$defs/place"},
            },
            "required": ["city"],
            "$defs": {"place": {"type": "array", "items": {"type": "number"}}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
FIELDS = read_tools({"tools": [WEATHER, CLOCK]})


def written(support: ToolSupport, *calls: tuple[str, str]) -> str:
    """Calls as a model writes them, arguments as they stand."""
    tool_format = support.format
    form = tool_format.forms[0]
    each = [f"{form.before}{name}{form.after}{arguments}{form.tails[0]}" for name, arguments in calls]
    return (tool_format.begin + tool_format.between.join(each) + tool_format.end).replace(
        "#########", "abc123XYZ"
    )


def deltas(support: ToolSupport, pieces: Sequence[str], **options: Any) -> list[Delta]:
    """Everything that a stream tells of these pieces, neighbours of a kind joined; ids are numbers."""
    numbers = count()
    stream = ToolCallStream(support, FIELDS.functions, new_id=lambda: f"id-{next(numbers)}", **options)
    joined: list[Delta] = []
    for delta in [*(one for piece in pieces for one in stream.feed(piece)), *stream.finish()]:
        match joined[-1:], delta:
            case [ContentDelta(before)], ContentDelta(text):
                joined[-1] = ContentDelta(before + text)
            case [ArgumentsDelta(index, before)], ArgumentsDelta(_, text):
                joined[-1] = ArgumentsDelta(index, before + text)
            case _:
                joined.append(delta)
    assert (stream.finish_reason == "tool_calls") == any(
        isinstance(d, CallEnd) and d.complete for d in joined
    )
    return joined


def answer(name: str, text: str, *, keep_broken: bool = False, **options: Any) -> ToolAnswer:
    return collect(deltas(SUPPORT[name], [text], **options), keep_broken=keep_broken)


def calls(told: ToolAnswer) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in told.calls]


# What a request may ask


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a\n"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a" * 65}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "colour": 1}}]}, "function.colour"),
        ({"tools": [{"type": "function", "function": {"name": "a", "strict": "yes"}}]}, "function.strict"),
        ({"tools": [CLOCK, CLOCK]}, "two functions named 'clock'"),
        ({"tools": "clock"}, "tools"),
        (
            {"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)]},
            "tools",
        ),
        ({"tools": [CLOCK], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        (
            {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "get_time"}}},
            "'get_time'",
        ),
        ({"tools": [CLOCK], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [CLOCK], "tool_choice": 3}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [CLOCK], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(fields: dict[str, Any], at_fault: str) -> None:
    with pytest.raises(UsageError) as refusal:
        read_tools(fields)
    assert at_fault in refusal.value.message


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "string"},
        {"type": "object", "properties": ["city"]},
        {"type": "object", "properties": {"city": True}},
        {"type": "object", "properties": {}, "required": "city"},
        {"type": "object", "description": "x" * (1 << 18)},
        [],
    ],
)
def test_parameters_that_describe_no_arguments_are_refused(parameters: Any) -> None:
    with pytest.raises(UsageError, match="tools"):
        read_tools({"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]})


def test_deep_parameters_are_refused_however_deep() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"not": schema}
    with pytest.raises(UsageError, match="nested"):
        read_tools({"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]})
    while schema:  # freed one by one: Python frees nested objects by recursion
        schema = schema.pop("not")


def test_nulls_are_as_good_as_absent() -> None:
    fields = read_tools({"tools": None, "tool_choice": None, "parallel_tool_calls": None})
    assert fields == ToolFields()
    assert (fields.functions, fields.forced, fields.constrained) == ((), False, False)


def test_what_a_choice_leaves_to_be_called() -> None:
    names = {
        "none": (),
        "auto": ("get_weather", "clock"),
        "required": ("get_weather", "clock"),
    }
    for choice, left in names.items():
        fields = read_tools({"tools": [WEATHER, CLOCK], "tool_choice": choice})
        assert tuple(function.name for function in fields.functions) == left
        assert fields.forced == fields.constrained == (choice == "required")
    one = {"type": "function", "function": {"name": "clock"}}
    fields = read_tools({"tools": [WEATHER, CLOCK], "tool_choice": one})
    assert [function.name for function in fields.functions] == ["clock"]
    assert fields.forced
    assert fields.as_given == [WEATHER, CLOCK]
    assert read_tools({"tools": [CLOCK], "tool_choice": "none"}).as_given == []


def test_tools_are_told_to_the_model_as_they_came() -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"a": {"default": None}}}},
    }
    assert read_tools({"tools": [tool]}).as_given == [tool]


# Which format a template has

SHORT_IDS = "{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
CALLS = {
    "hermes": (
        "{% for c in m.tool_calls %}<tool_call>\n"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
        "{% endfor %}"
    ),
    "llama": (
        "{% set c = m.tool_calls[0].function %}"
        '{"name": "{{ c.name }}", "parameters": {{ c.arguments | tojson }}}'
    ),
    "mistral-list": (
        "[TOOL_CALLS] [{% for c in m.tool_calls %}"
        + SHORT_IDS
        + '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}'
        ', "id": "{{ c.id }}"}'
        "{{ '' if loop.last else ', ' }}{% endfor %}]"
    ),
    "mistral": (
        "{% for c in m.tool_calls %}"
        "[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}"
        "{% endfor %}"
    ),
    "mistral-id": (
        "{% for c in m.tool_calls %}"
        + SHORT_IDS
        + "[TOOL_CALLS]{{ c.function.name }}[CALL_ID]{{ c.id }}[ARGS]{{ c.function.arguments | tojson }}"
        "{% endfor %}"
    ),
    "qwen-xml": (
        "{% for c in m.tool_calls %}<tool_call>\n<function={{ c.function.name }}>\n"
        "{% for key, value in c.function.arguments | items %}"
        "<parameter={{ key }}>\n{{ value }}\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}"
    ),
}


def template(call: str) -> str:
    return (
        "{% if tools %}Tools: {{ tools | tojson }}\n{% endif %}{% for m in messages %}[{{ m.role }}]"
        "{% if m.tool_calls %}{{ m.content }}"
        + call
        + "{% elif m.role == 'tool' %}{{ m.name }} said {{ m.content }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )


@pytest.mark.parametrize("name", CALLS)
def test_the_format_of_a_template_is_found_and_what_it_writes_is_read(name: str) -> None:
    told = [("get_weather", {"city": "Ghent"}), ("clock", {})][: 1 if name == "llama" else 2]
    made = [
        {
            "id": f"call_{i}",
            "type": "function",
            "function": {"name": called, "arguments": json.dumps(arguments)},
        }
        for i, (called, arguments) in enumerate(told)
    ]
    with TemplateRenderer(template(CALLS[name])) as renderer:
        support = find_tools(renderer.render)
        assert (support.format.name, support.short_ids) == (name, name in ("mistral-list", "mistral-id"))
        conversation = template_messages(
            [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": None, "tool_calls": made},
                {"role": "tool", "tool_call_id": "call_0", "content": "Rain"},
            ],
            support,
        )
        text = renderer.render(conversation, tools=FIELDS.as_given)
    asked, _, rest = text.partition("[assistant]")
    assert asked.endswith("[user]Hello")
    wrote, _, after = rest.rpartition("[tool]")
    assert after == "get_weather said Rain"
    told_by_stream = collect(deltas(support, [wrote]))
    assert told_by_stream.content is None
    assert calls(told_by_stream) == told


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "no place for tools"),
        ("{{ raise_exception('never') }}", "no place for tools"),
        (template("<call>{{ m.tool_calls[0].function.name }}</call>"), "not supported"),
        (template("{{ raise_exception('no calls here') }}"), "not supported"),
    ],
)
def test_a_template_without_a_known_format_is_refused(source: str, message: str) -> None:
    with TemplateRenderer(source) as renderer, pytest.raises(UsageError, match=message):
        find_tools(renderer.render)


def test_a_failing_template_says_so_for_other_errors() -> None:
    def render(messages: Any, *, tools: Any) -> str:
        raise UsageError("closed")

    with pytest.raises(UsageError, match="closed"):
        find_tools(render)


def test_ids_are_of_the_kind_that_the_template_takes() -> None:
    support = SUPPORT["mistral"]
    assert support.new_id().startswith("call_")
    assert support.new_id() != support.new_id()
    short = ToolSupport(support.format, short_ids=True).new_id()
    assert len(short) == 9
    assert short.isalnum()


# Conversations


def made_call(arguments: str = "{}", call_id: str = "a") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "clock", "arguments": arguments}}


def test_other_messages_are_left_alone() -> None:
    messages = [{"role": "system", "content": "s"}, {"role": "assistant", "content": None}]
    assert template_messages(messages, SUPPORT["hermes"]) == messages
    empty = {"role": "assistant", "content": "x", "tool_calls": None}
    assert template_messages([empty], SUPPORT["hermes"]) == [{"role": "assistant", "content": "x"}]


def test_arguments_become_objects_and_nothing_of_the_request_is_changed() -> None:
    sent = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**made_call('{"a": [1]}'), "index": 0}, made_call("")],
    }
    before = json.dumps(sent)
    (ready,) = template_messages([sent], SUPPORT["hermes"])
    assert [call["function"]["arguments"] for call in ready["tool_calls"]] == [{"a": [1]}, {}]
    assert ready["content"] == ""
    assert "index" not in ready["tool_calls"][0]
    assert json.dumps(sent) == before


@pytest.mark.parametrize(
    ("messages", "at_fault"),
    [
        ([{"role": "tool", "tool_call_id": "a", "content": "x"}], "messages[0].tool_call_id"),
        (
            [{"role": "assistant", "tool_calls": [made_call("[]")]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            [{"role": "assistant", "tool_calls": [made_call("{")]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
        ([{"role": "assistant", "tool_calls": [made_call("[" * 100_000)]}], "function.arguments"),
        ([{"role": "assistant", "tool_calls": [{"id": "a"}]}], "messages[0].tool_calls[0]"),
        (
            [{"role": "assistant", "tool_calls": [{**made_call(), "type": "custom"}]}],
            "messages[0].tool_calls[0]",
        ),
        ([{"role": "assistant", "tool_calls": ["a"]}], "messages[0].tool_calls[0]"),
    ],
)
def test_calls_that_are_none_are_refused(messages: list[dict[str, Any]], at_fault: str) -> None:
    with pytest.raises(UsageError) as refusal:
        template_messages(messages, SUPPORT["hermes"])
    assert at_fault in refusal.value.message


def test_long_ids_become_short_ones_that_still_agree() -> None:
    support = ToolSupport(SUPPORT["mistral"].format, short_ids=True)
    messages = [
        {
            "role": "assistant",
            "tool_calls": [made_call(call_id="call_123456789abc"), made_call(call_id="abcdef123")],
        },
        {"role": "tool", "tool_call_id": "call_123456789abc", "content": "noon"},
        {"role": "tool", "tool_call_id": "abcdef123", "content": "one"},
    ]
    made, first, second = template_messages(messages, support)
    ids = [call["id"] for call in made["tool_calls"]]
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    assert ids[1] == "abcdef123"
    assert len(ids[0]) == 9
    assert ids[0].isalnum()


# What is read out of a model's text

JSON_FORMATS = [name for name, support in SUPPORT.items() if not support.format.xml]
SEVERAL = [name for name, support in SUPPORT.items() if not support.format.single]


@pytest.mark.parametrize("name", JSON_FORMATS)
def test_a_call_streams_as_it_is_written(name: str) -> None:
    arguments = '{"city": "Gh\\"ent }", "days": 2}'
    text = written(SUPPORT[name], ("get_weather", arguments))
    told = deltas(SUPPORT[name], list(text))
    end = told[-1]
    assert isinstance(end, CallEnd)
    assert told == [
        CallBegin(0, "id-0", "get_weather"),
        ArgumentsDelta(0, arguments),
        CallEnd(0, True, end.text),
    ]
    assert text.startswith(end.text)


@pytest.mark.parametrize("name", JSON_FORMATS)
def test_arguments_come_out_at_once(name: str) -> None:
    support = SUPPORT[name]
    stream = ToolCallStream(support, FIELDS.functions)
    head, _, rest = written(support, ("get_weather", '{"city": "Ghent"}')).partition('{"city"')
    assert stream.feed(head) == []
    begun, *_ = stream.feed('{"ci')
    assert isinstance(begun, CallBegin)
    assert stream.feed('ty": "Gh') == [ArgumentsDelta(0, 'ty": "Gh')]
    assert stream.finish_reason is None
    assert [type(delta) for delta in stream.feed(rest[len(': "Gh') :])] == [ArgumentsDelta, CallEnd]
    assert stream.finish() == []


@pytest.mark.parametrize("name", SEVERAL)
def test_several_calls_behind_text(name: str) -> None:
    arguments = "</function>" if SUPPORT[name].format.xml else "{}"
    text = "Let me look.\n\n" + written(SUPPORT[name], ("clock", arguments), ("clock", arguments)) + "\n"
    told = answer(name, text)
    assert told.content == "Let me look."
    assert calls(told) == [("clock", {}), ("clock", {})]
    assert [call.id for call in told.calls] == ["id-0", "id-1"]


@pytest.mark.parametrize("name", SEVERAL)
def test_without_parallel_calls_the_first_is_the_last(name: str) -> None:
    arguments = "</function>" if SUPPORT[name].format.xml else "{}"
    stream = ToolCallStream(SUPPORT[name], FIELDS.functions, parallel=False)
    text = written(SUPPORT[name], ("clock", arguments), ("clock", arguments))
    told = [*stream.feed(text), *stream.feed("more"), *stream.finish()]
    assert stream.done
    assert calls(collect(told)) == [("clock", {})]
    assert collect(told).content is None


def test_llama_has_one_call_in_an_answer_and_some_ways_to_begin_it() -> None:
    call = '"name": "clock", "parameters": {}}'
    for text in (
        "{" + call,
        "<|python_tag|>{" + call,
        '\n{"type": "function", ' + call,
        f"{{{call}; {{{call}",
    ):
        told = answer("llama", text)
        assert (told.content, calls(told)) == (None, [("clock", {})])
    told = answer("llama", "Here: {" + call)
    assert (told.content, told.calls) == ("Here: {" + call, ())


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{\n  "name": "clock",\n  "arguments": {}\n}\n```',
        '{"name": "clock", "arguments": {}}',
        '<tool_call>{"name":"clock","arguments":{}}</tool_call>',
        '<tool_call>\n{"name": "clock", "arguments": {}}',
    ],
)
def test_hermes_calls_as_small_models_write_them(text: str) -> None:
    told = answer("hermes", text)
    assert (told.content, calls(told)) == (None, [("clock", {})])


def test_under_a_grammar_only_the_templates_own_way_counts() -> None:
    text = '```json\n{"name": "clock", "arguments": {}}\n```'
    assert answer("hermes", text, exact=True) == ToolAnswer(text, ())


def test_mistral_lists_may_have_ids() -> None:
    call = '{"name": "clock", "arguments": {}, "id": "abcdef123"}'
    told = answer("mistral-list", f"[TOOL_CALLS] [{call}, {call}]")
    assert (told.content, calls(told)) == (None, [("clock", {}), ("clock", {})])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", "a < b and <tool_calls> are {no} ```calls```\n  "),
        ("hermes", '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"title": "clock"}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "clock", "arguments": "{}"}\n</tool_call>'),
        ("hermes", '<tool_call>\n{"name": "clock"'),
        ("hermes", "  \n"),
        ("llama", '{"temperature": 3}'),
        ("llama", '{"name": "clock", "parameters"'),
        ("mistral", "[TOOL_CALLS]unknown[ARGS]{}"),
        ("mistral-list", "[TOOL_CALLS][]"),
        ("qwen-xml", "<tool_call>\n<function=unknown>\n</function>\n</tool_call>"),
        ("hermes", ""),
    ],
)
def test_what_is_no_call_is_content_to_the_letter(name: str, text: str) -> None:
    assert answer(name, text) == ToolAnswer(text, ())


@pytest.mark.parametrize("name", JSON_FORMATS)
@pytest.mark.parametrize("arguments", ['{"city": "Gh', '{"city": Ghent}', '{"days": NaN}', "{" * 50_000])
def test_a_call_that_breaks_off_is_content_again_or_what_there_is_of_it(name: str, arguments: str) -> None:
    support = SUPPORT[name]
    text = "So:\n" * (name != "llama") + written(support, ("get_weather", arguments)).partition(arguments)[0]
    text += arguments
    told = answer(name, text)
    assert told == ToolAnswer(text, ())
    kept = answer(name, text, keep_broken=True)
    assert [(call.name, call.arguments) for call in kept.calls] == [("get_weather", arguments)]


def test_line_breaks_in_strings_are_escaped() -> None:
    told = answer("hermes", written(SUPPORT["hermes"], ("get_weather", '{"city":\n"a\nb\tc\\\nd"}')))
    assert calls(told) == [("get_weather", {"city": "a\nb\tc\\\nd"})]


def test_text_behind_a_call_is_content() -> None:
    told = answer("hermes", written(SUPPORT["hermes"], ("clock", "{}")) + "\n\nDone.\n")
    assert (told.content, calls(told)) == ("Done.\n", [("clock", {})])


def tags(**values: str) -> str:
    return (
        "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in values.items())
        + "</function>"
    )


def test_tagged_values_have_the_types_of_the_schema() -> None:
    values = {
        "city": '12 "x"\n</param>\n',
        "days": "3",
        "detail": "null",
        "hourly": "True",
        "where": "[1, 2.5]",
    }
    told = answer("qwen-xml", written(SUPPORT["qwen-xml"], ("get_weather", tags(**values))))
    expected = {"city": '12 "x"\n</param>\n', "days": 3, "detail": None, "hourly": True, "where": [1, 2.5]}
    assert calls(told) == [("get_weather", expected)]
    told = answer(
        "qwen-xml", written(SUPPORT["qwen-xml"], ("get_weather", tags(detail="5", days="a few", new="[]")))
    )
    assert calls(told) == [("get_weather", {"detail": "5", "days": "a few", "new": []})]
    told = answer("qwen-xml", written(SUPPORT["qwen-xml"], ("get_weather", tags(days="1e999", where="NaN"))))
    assert told.calls[0].arguments == '{"days": 1e999, "where": "NaN"}'


def test_tagged_text_streams_without_half_an_end() -> None:
    stream = ToolCallStream(SUPPORT["qwen-xml"], FIELDS.functions)
    stream.feed("<tool_call>\n<function=get_weather>\n<parameter=city>\nGh")
    assert stream.feed("ent\n</para") == [ArgumentsDelta(0, "ent")]
    assert stream.feed("graph>") == [ArgumentsDelta(0, "\\n</paragraph>")]


@pytest.mark.parametrize(
    "arguments", ["<parameter=city>\nGh", "nonsense", "<parameter=>\n", "<parameter", "\n<parax"]
)
def test_broken_tags_are_content_again(arguments: str) -> None:
    text = "<tool_call>\n<function=get_weather>\n" + arguments
    assert answer("qwen-xml", text) == ToolAnswer(text, ())
    assert deltas(SUPPORT["qwen-xml"], list(text)) == deltas(SUPPORT["qwen-xml"], [text])


MARKS = [
    "<tool_call>",
    "</tool_call>",
    "<function=clock>",
    "<function=get_weather>\n",
    "</function>",
    "<parameter=city>\n",
    "<parameter=days>",
    "\n</parameter>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[",
    "]",
    "}",
    ", ",
    "\n",
    " ",
    "<",
    '{"name": "clock", "arguments": ',
    '{"name": "get_weather", "parameters": ',
    "{}",
    '{"city": "a"}',
    '"',
    "\\",
    "clock",
    "x",
    "é🙂",
    "```json\n",
    "\n```",
]
texts = st.lists(st.sampled_from(MARKS) | st.text(max_size=3), max_size=14).map("".join)


@st.composite
def splits(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A text, half the time with a good call in it, and pieces of it."""
    name = draw(st.sampled_from(sorted(SUPPORT)))
    text = draw(texts)
    if draw(st.booleans()):
        xml = SUPPORT[name].format.xml
        good = draw(
            st.lists(st.sampled_from([tags(), tags(city="a\nb")] if xml else ["{}", '{"city": "a"}']))
        )
        text = (
            draw(texts) * draw(st.booleans())
            + written(SUPPORT[name], *(("clock", one) for one in good))
            + text
        )
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=20).map(sorted))
    return name, [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(splits())
@example(("hermes", list('<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call> x')))
@example(
    (
        "mistral-list",
        list('[TOOL_CALLS] [{"name": "clock", "arguments": {}} , {"name": "clock", "arguments": {"'),
    )
)
def test_pieces_make_no_difference(split: tuple[str, list[str]]) -> None:
    name, pieces = split
    text = "".join(pieces)
    whole = deltas(SUPPORT[name], [text])
    assert deltas(SUPPORT[name], pieces) == whole
    assert deltas(SUPPORT[name], list(text)) == whole
    told = collect(whole)
    for call in told.calls:
        assert isinstance(json.loads(call.arguments), dict)
    if not told.calls:
        assert told.content == text


@given(splits())
def test_every_call_begins_and_ends_once_in_order(split: tuple[str, list[str]]) -> None:
    name, pieces = split
    begun: Iterator[int] = count()
    current: int | None = None
    for delta in deltas(SUPPORT[name], pieces):
        match delta:
            case CallBegin(index):
                assert current is None
                assert index == next(begun)
                current = index
            case ArgumentsDelta(index):
                assert index == current
            case CallEnd(index):
                assert index == current
                current = None
            case ContentDelta(text):
                assert current is None
                assert text
    assert current is None


def test_shapes_are_openais() -> None:
    begin, delta, _ = deltas(SUPPORT["mistral"], ["[TOOL_CALLS]clock[ARGS]{}"])
    assert isinstance(begin, CallBegin)
    assert isinstance(delta, ArgumentsDelta)
    function = {"name": "clock", "arguments": ""}
    assert begin.as_openai() == {"index": 0, "id": "id-0", "type": "function", "function": function}
    assert delta.as_openai() == {"index": 0, "function": {"arguments": "{}"}}
    (call,) = answer("mistral", "[TOOL_CALLS]clock[ARGS]{}").calls
    function = {"name": "clock", "arguments": "{}"}
    assert call.as_openai() == {"id": "id-0", "type": "function", "function": function}
