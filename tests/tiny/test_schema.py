"""JSON schemas as grammars, on a real vocabulary: what they let pass, and what is refused."""

import json
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from gguf_files import tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from llamaspec.errors import GrammarError
from llamaspec.native.grammar import NativeGrammar
from llamaspec.native.model import Model
from llamaspec.native.schema import MAX_DEPTH, schema_to_grammar


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model(tiny_llama(tmp_path_factory.mktemp("models") / "model.gguf")) as model:
        yield model


def fits(model: Model, gbnf: str, text: str) -> bool:
    """Whether a text can be written, and may end there."""
    grammar = NativeGrammar(model, gbnf)
    for token in model.tokenize(text, special=False):
        if not grammar.allowed(np.array([token]))[0]:
            return False
        grammar.accept(token)
    return bool(grammar.allowed(np.array(model.eog_tokens)).any())


A_NODE = {
    "$defs": {
        "Tree_Node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "below": {"type": "array", "items": {"$ref": "#/$defs/Tree_Node"}},
            },
            "required": ["name"],
        }
    },
    "$ref": "#/$defs/Tree_Node",
}
NAMED = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "null"}, "c": {"type": "boolean"}},
    "required": ["b"],
}
OPEN = {
    "properties": {"ab": {"type": "integer"}, "ac": {"type": "integer"}},
    "additionalProperties": {"type": "null"},
}

CASES: list[tuple[Any, list[str], list[str]]] = [
    ({}, ["1", '"x"', "[]", '{"a": [1, {"b": null}]}', "true"], ["", "x", "[1,]", '{"a" 1}']),
    ({"type": "object"}, ["{}", '{"a":1}', '{\n  "a": 1,\n  "b": {}\n}'], ["[]", "{} "]),
    ({"type": "string"}, ['"é\\n\\u00e9"', '""'], ['"\n"', '"\\ud800"', '"a', '"\\x"']),
    (
        NAMED,
        ['{"b": null}', '{"a": 1, "b": null, "c": true}', '{"a":1,"b":null}'],
        ["{}", '{"b": null, "a": 1}', '{"a": 1}', '{"b": null, "d": 1}'],
    ),
    (
        {**NAMED, "required": []},
        ["{}", '{"c": true}', '{"a": 1, "c": false}'],
        ['{"c": true, "a": 1}', '{, "a": 1}'],
    ),
    (
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["z"]},
        ['{"a": 1, "z": "any"}', '{"z": []}'],
        ['{"a": 1}', "{}"],
    ),
    (
        OPEN,
        ["{}", '{"ab": 1}', '{"ac": 1, "x": null}', '{"a": null, "abc": null}', '{"": null}'],
        ['{"ab": null}', '{"x": null, "ab": null}', '{"x": 1}', '{"\\u0061b": null}'],
    ),
    ({"type": "object", "properties": {}, "additionalProperties": False}, ["{}"], ['{"a": 1}']),
    (
        {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "minProperties": 1,
            "maxProperties": 2,
        },
        ['{"a": 1}', '{"a": 1, "b": 2}'],
        ["{}", '{"a": 1, "b": 2, "c": 3}', '{"a": ""}'],
    ),
    ({"type": "object", "propertyNames": {"enum": ["x", "y"]}}, ['{"x": 1}', "{}"], ['{"z": 1}']),
    (A_NODE, ['{"name": "a", "below": [{"name": "b", "below": []}]}'], ['{"name": "a", "below": [{}]}']),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}, ["3", "null"], ["true"]),
    ({"type": ["string", "null"], "maxLength": 2}, ['"ab"', "null"], ['"abc"', "1"]),
    ({"type": "integer", "nullable": True}, ["3", "null"], ["0.5"]),
    (
        {"anyOf": [{"type": "string"}, {"type": "integer"}], "maxLength": 1, "maximum": 3},
        ['"a"', "3"],
        ['"ab"', "4"],
    ),
    ({"allOf": [NAMED], "description": "one"}, ['{"b": null}'], ["{}"]),
    (
        {"allOf": [NAMED, {"properties": {"a": {"minimum": 5}}, "required": ["a"]}]},
        ['{"a": 5, "b": null}'],
        ['{"a": 4, "b": null}', '{"b": null}'],
    ),
    (
        {"allOf": [{**NAMED, "additionalProperties": False}, {"properties": {"z": {}}}]},
        ['{"b": null}'],
        ['{"b": null, "z": 1}'],
    ),
    (
        {"enum": ["a", "ab", 'b"\n', 3, None, {"k": [1]}]},
        ['"a"', '"ab"', '"b\\"\\n"', "3", "null", '{"k": [1]}'],
        ['"b"', "33", '"abc"'],
    ),
    ({"type": "string", "enum": ["x", 3]}, ['"x"'], ["3"]),
    ({"const": "é"}, ['"é"'], ['"e"']),
    (
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
        ["[1]", "[1, 2, 3]"],
        ["[]", "[1, 2, 3, 4]"],
    ),
    (
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "null"}],
            "minItems": 2,
            "maxItems": 2,
        },
        ["[1, null]"],
        ["[1]", "[1, null, 2]"],
    ),
    ({"type": "array", "items": [{"type": "integer"}]}, ["[1]"], ["[null]"]),
    (
        {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "integer"}, "minItems": 2},
        ["[null, 1]", "[null, 1, 2]"],
        ["[null]"],
    ),
    ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"éé\\n"'], ['"a"', '"abcd"']),
    (
        {"type": "string", "pattern": "^[a-c]{2,3}(-|_)\\d+$"},
        ['"ab-1"', '"abc_99"'],
        ['"a-1"', '"ab-"', '"abd-1"'],
    ),
    ({"type": "string", "pattern": "[^a]\\w?"}, ['"xay"', '"b"', '"a\\n"'], ['"a"', '"']),
    ({"type": "string", "pattern": '^(?:"|\\\\|.)$'}, ['"\\""', '"\\\\"', '"x"'], ['"""', '"\\"', '"\n"']),
    ({"type": "string", "pattern": "^a|b$"}, ['"axx"', '"xxb"'], ['"xax"', '"bx"']),
    (
        {"type": "string", "format": "date"},
        ['"2024-02-28"', '"1999-12-31"'],
        ['"2024-13-01"', '"2024-04-31"'],
    ),
    (
        {"type": "string", "format": "date-time"},
        ['"2024-02-28T23:59:59.5Z"', '"2024-02-28T00:00:00+02:00"'],
        ['"2024-02-28"'],
    ),
    ({"type": "string", "format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']),
    (
        {"type": "string", "format": "email"},
        ['"a.b@example.org"'],
        ['"a@b"', '"@example.org"', '"a..b@example.org"'],
    ),
    ({"type": "string", "format": "uri"}, ['"https://example.org/a?b=1#c"'], ['"example"', '"https:// x"']),
    ({"type": "string", "format": "ipv4"}, ['"255.1.10.0"'], ['"256.1.1.1"', '"1.1.1"']),
    ({"type": "string", "format": "duration"}, ['"P1DT2H"', '"PT5M3S"'], ['"P"', '"PT"', '"PT1H3S"']),
    (
        {"type": "number", "minimum": 0, "maximum": 1},
        ["0", "1", "0.5", "1.0", "0.999"],
        ["-0.1", "1.01", "2", "1e3"],
    ),
    ({"type": "number", "exclusiveMinimum": 0}, ["0.001", "7", "12.5"], ["0", "0.0", "-1"]),
    ({"type": "integer", "multipleOf": 1, "x-note": "y"}, ["12", "-3"], ["012", "1.5", "+1"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case[0])[:60])
def test_what_a_schema_lets_pass(llama: Model, case: tuple[Any, list[str], list[str]]) -> None:
    schema, good, bad = case
    gbnf = schema_to_grammar(json.dumps(schema))
    assert [text for text in good if not fits(llama, gbnf, text)] == []
    assert [text for text in bad if fits(llama, gbnf, text)] == []


REFUSED = [
    {"not": {}},
    {"if": {}, "then": {}},
    {"type": "object", "patternProperties": {"^a": {}}},
    {"type": "array", "uniqueItems": True, "items": {"type": "integer"}},
    {"type": "array", "minItems": 3, "maxItems": 1},
    {"type": "array", "minItems": 1_000_000},
    {"type": "array", "maxItems": -1},
    {"type": "string", "maxLength": 10_000_000},
    {"type": "string", "minLength": 3, "maxLength": 2},
    {"type": "string", "minLength": "3"},
    {"type": "string", "format": "no such format"},
    {"type": "string", "pattern": "^a$", "minLength": 1},
    {"type": "integer", "minimum": 5, "maximum": 4},
    {"type": "integer", "minimum": True},
    {"type": "number", "exclusiveMinimum": 1, "maximum": 1},
    {"type": "number", "minimum": 1e-300},
    {"type": "integer", "multipleOf": 5},
    {"type": "object", "properties": {"a": {}}, "required": ["z"], "additionalProperties": False},
    {"type": "object", "properties": {"a": False}, "required": ["a"]},
    {"allOf": [{"type": "string"}, {"type": "integer"}]},
    {"allOf": [{"type": "string", "pattern": "a"}, {"pattern": "b"}]},
    {"enum": []},
    {"enum": [1], "type": "string"},
    {"$ref": "#/$defs/missing"},
    {"$ref": "other.json"},
    {"$ref": "#"},
    {"$ref": "#/title", "title": "x"},
    {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "string"}]}}, "$ref": "#/$defs/a"},
    {"const": "\ud800"},
    {"type": "string", "strict": True},
    {"x": {}},
    {"type": []},
    {"anyOf": []},
    {"items": 3},
    {"properties": {"a": 3}},
    {"required": "a"},
]


@pytest.mark.parametrize("schema", REFUSED, ids=lambda schema: json.dumps(schema)[:60])
def test_what_can_not_be_kept_is_refused(llama: Model, schema: object) -> None:
    with pytest.raises(GrammarError):
        NativeGrammar(llama, schema_to_grammar(json.dumps(schema)))


BAD_PATTERNS = [
    "(",
    ")",
    "[",
    "[a-",
    "[z-a]",
    "a{2,1}",
    "a{99999}",
    "*",
    "a**",
    "\\",
    "\\p{L}",
    "(?=a)",
    "(?<!a)",
    "(a)\\1",
    "\\b",
    "a^",
    "$a",
    "[",
    "(?i)a",
    "a{1",
    "\\u{110000}",
    "\\ud800",
    "(" * 5000,
    "[]",
]


@pytest.mark.parametrize("pattern", BAD_PATTERNS, ids=range(len(BAD_PATTERNS)))
def test_patterns_that_can_not_be_kept(pattern: str) -> None:
    with pytest.raises(GrammarError):
        schema_to_grammar(json.dumps({"type": "string", "pattern": pattern}))


def nested(before: str, after: str, times: int) -> str:
    return before * times + "{}" + after * times


LARGE = {
    "deep anyOf": nested('{"anyOf":[', "]}", 3000),
    "just too deep": nested('{"items":', "}", MAX_DEPTH),
    "allOf of anyOf": json.dumps(
        {"allOf": [{"anyOf": [{"minLength": i}, {"maxLength": i}]} for i in range(24)]}
    ),
    "doubling references": json.dumps(
        {
            "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)},
            "$ref": "#/$defs/d0",
        }
    ),
    "a long name": json.dumps({"properties": {"n" * 30_000: {}}, "additionalProperties": True}),
    "many beginnings": json.dumps({"enum": ["a" * i for i in range(340)]}),
    "a large number": '{"minimum": 1' + "0" * 5000 + "}",
    "an infinite number": '{"minimum": 1e999}',
    "not a number": '{"minimum": NaN}',
    "many values": json.dumps({"enum": [f"{i}{i}{i}" for i in range(6000)]}),
}


@pytest.mark.parametrize("name", LARGE)
def test_large_schemas_end_in_a_grammar_or_an_error(name: str) -> None:
    try:
        gbnf = schema_to_grammar(LARGE[name])
    except GrammarError:
        return
    assert len(gbnf) < 1 << 16


def test_many_values_are_one_tree(llama: Model) -> None:
    values = [f"value number {i}" for i in range(1500)]
    gbnf = schema_to_grammar(json.dumps({"enum": values}))
    assert fits(llama, gbnf, json.dumps(values[777]))
    assert not fits(llama, gbnf, '"value number 1500"')


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: Annotated[float, Field(gt=0, le=10)]


class Square(BaseModel):
    kind: Literal["square"]
    side: Annotated[int, Field(ge=1, lt=100)]


class Drawing(BaseModel):
    """Of every sort of field that clients commonly send."""

    title: str = Field(description="a title", max_length=40)
    colour: Colour | None = None
    shapes: list[Annotated[Circle | Square, Field(discriminator="kind")]] = Field(max_length=8)
    point: tuple[int, int] = (0, 0)
    tags: dict[str, int] = {}
    code: str = Field("A1", pattern=r"^[A-Z]\d$")
    below: "list[Drawing]" = []


def test_what_pydantic_sends(llama: Model) -> None:
    gbnf = schema_to_grammar(json.dumps(Drawing.model_json_schema()))
    drawing = Drawing(
        title="of “two”",
        colour=Colour.RED,
        shapes=[Circle(kind="circle", radius=2.5), Square(kind="square", side=99)],
        point=(3, -4),
        tags={"new": 1},
        below=[Drawing(title="small", shapes=[])],
    )
    text = json.dumps(drawing.model_dump(mode="json"), ensure_ascii=False)
    assert fits(llama, gbnf, text)
    assert fits(llama, gbnf, drawing.model_dump_json(indent=2))
    assert not fits(llama, gbnf, text.replace("99", "100"))
    assert not fits(llama, gbnf, text.replace("red", "green"))
    assert not fits(llama, gbnf, text.replace("A1", "AA"))


bounds = st.one_of(st.integers(-1200, 1200), st.integers(-(10**17), 10**17))


@settings(max_examples=150, deadline=None)
@given(low=bounds, high=bounds, value=bounds, near=st.integers(-2, 2))
def test_integers_within_bounds(llama: Model, low: int, high: int, value: int, near: int) -> None:
    low, high = sorted((low, high))
    schema = {"type": "integer", "minimum": low, "maximum": high}
    if low >= 10**16 or high <= -(10**16):
        with pytest.raises(GrammarError):
            schema_to_grammar(json.dumps(schema))
        return
    gbnf = schema_to_grammar(json.dumps(schema))
    for number in (value, low + near, high + near):
        assert fits(llama, gbnf, str(number)) == (low <= number <= high and abs(number) < 10**16)


decimals = st.decimals(-50, 50, places=2) | st.decimals(-2, 2, places=1)


@settings(max_examples=200, deadline=None)
@given(
    low=decimals,
    high=decimals,
    value=st.decimals(-51, 51, places=3) | decimals,
    above=st.booleans(),
    below=st.booleans(),
)
def test_numbers_within_bounds(
    llama: Model, low: Decimal, high: Decimal, value: Decimal, above: bool, below: bool
) -> None:
    low, high = sorted((low, high))
    least, most = ("exclusiveMinimum" if above else "minimum"), ("exclusiveMaximum" if below else "maximum")
    schema = json.dumps({"type": "number", least: float(low), most: float(high)})
    if low == high and (above or below):
        with pytest.raises(GrammarError):
            schema_to_grammar(schema)
        return
    gbnf = schema_to_grammar(schema)
    for number in (value, low, high):
        inside = (low < number if above else low <= number) and (number < high if below else number <= high)
        assert fits(llama, gbnf, f"{number:.3f}") == inside, (number, gbnf)
