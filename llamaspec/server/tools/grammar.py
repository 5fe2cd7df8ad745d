"""Grammars under which a model can write nothing but sound calls: GBNF in the model's own format.

Grammars of several schemas become one: rules that are the same everywhere stay one rule, all others
get a name of their own.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamaspec.errors import GrammarError
from llamaspec.server.tools.arguments import PARAMETER_NAME
from llamaspec.server.tools.formats import ID, Form, ToolFormat
from llamaspec.server.tools.request import Function, ToolFields
from llamaspec.server.tools.schemas import TEXT_ONLY, types_of

ConvertSchema = Callable[[str], str]
"""A JSON schema's text → GBNF with the rule `root`; raises GrammarError, as `schema_to_grammar` does."""

_ANY_OBJECT = {"type": "object"}
_NOTES = frozenset({"title", "description", "default", "examples", "$schema", "$comment"})
_KEPT_AS_TEXT = _NOTES | {"type"}
_KEPT_BY_TAGS = _KEPT_AS_TEXT | {"properties", "required", "additionalProperties", "$defs", "definitions"}

_RULE = re.compile(r"^([a-zA-Z0-9-]+)\s*::=", re.MULTILINE)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{[^}]*\}|[a-zA-Z0-9-]+')


def call_grammar(fields: ToolFields, tool_format: ToolFormat, convert: ConvertSchema) -> str | None:
    """GBNF for the whole answer; None where the model is free.

    A forced choice leaves nothing but calls, several only with `parallel_tool_calls` and where the format
    has them. Where nothing is forced and a function is strict, the answer is text, calls, or calls behind
    text. Arguments follow the function's schema. A function that is not strict and whose schema `convert`
    can't keep gets any object; for a strict one the GrammarError is passed on.
    """
    if not fields.constrained:
        return None
    form = tool_format.forms[0]
    opening = tool_format.begin + form.before
    targets, rules = _targets(fields.functions, tool_format, form, convert)
    calls = ["target"]
    if fields.parallel_tool_calls and not tool_format.single:
        calls.append(f"({_literal(tool_format.between + form.before)} target)*")
    if tool_format.end:
        calls.append(_literal(tool_format.end))
    rules |= {"target": " | ".join(targets), "calls": " ".join(calls)}
    if fields.forced:
        root = f"{_literal(opening)} calls"
    elif tool_format.marker:
        root = "text-0"
        rules |= _text_rules(
            "text", tool_format.marker, f"{_literal(opening[len(tool_format.marker) :])} calls"
        )
    else:
        # Only how an answer starts tells its calls from text.
        root = f"{_literal(opening)} calls | ([^ \\t\\r\\n{{<] text)?"
        rules["text"] = '"" | . text'
    return "\n".join(f"{name} ::= {body}" for name, body in {"root": root, **rules}.items())


def _targets(
    functions: Sequence[Function], tool_format: ToolFormat, form: Form, convert: ConvertSchema
) -> tuple[list[str], dict[str, str]]:
    """For each function what comes behind `before`, and the rules that are needed for it."""
    grammars: list[str] = []

    def nested(schema: Mapping[str, Any]) -> str:
        """A reference to the rule of a schema's texts, which `_merged` makes."""
        grammars.append(convert(json.dumps(schema)))
        return f"args{len(grammars) - 1}-root"

    targets = []
    for function in functions:
        write = _tagged_arguments if tool_format.xml else _json_arguments
        try:
            arguments = write(function, nested)
        except GrammarError as error:
            raise GrammarError(f"The arguments of {function.name!r}: {error.message}", error.hint) from error
        head = _literal(function.name + form.after).replace(ID, f'" {"[a-zA-Z0-9] " * len(ID)}"')
        targets.append(f"{head} {arguments} {_literal(form.tails[0])}")
    rules = _merged(grammars)
    if tool_format.xml:
        rules |= _text_rules("value", "</parameter>", None)
    return targets, rules


def _json_arguments(function: Function, nested: Callable[[Mapping[str, Any]], str]) -> str:
    try:
        return nested(function.schema_of_arguments)
    except GrammarError:
        if function.strict:
            raise
        return nested(_ANY_OBJECT)


def _tagged_arguments(function: Function, nested: Callable[[Mapping[str, Any]], str]) -> str:
    schema = function.schema_of_arguments
    if function.strict and (beyond := sorted(schema.keys() - _KEPT_BY_TAGS)):
        raise GrammarError(f"{beyond[0]!r} beside properties can't be kept in this model's format.")
    properties: dict[str, Any] = schema.get("properties", {})
    if function.strict and (unknown := sorted(set(schema.get("required", [])) - properties.keys())):
        raise GrammarError(f"{unknown[0]!r} is required, and not among the properties.")
    written = []
    for name, value in properties.items():
        if not re.fullmatch(PARAMETER_NAME, name):
            raise GrammarError(f"A parameter can't be named {name!r} in this model's format.")
        tag, end = _literal(f"<parameter={name}>\n"), _literal("\n</parameter>\n")
        tagged = f"{tag} {_tagged_value(function, value, nested)} {end}"
        written.append(tagged if name in schema.get("required", []) else f"({tagged})?")
    return " ".join([*written, _literal("</function>")])


def _tagged_value(
    function: Function, schema: Mapping[str, Any], nested: Callable[[Mapping[str, Any]], str]
) -> str:
    """Text stands between the tags as it is, all else as JSON."""
    root = function.schema_of_arguments
    types = types_of(schema, root)
    if types == TEXT_ONLY and ("enum" in schema or "const" in schema):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
            raise GrammarError(f"The texts that a parameter of {function.name!r} may have are not texts.")
        if not any("</parameter>" in value for value in values):
            return f"({' | '.join(map(_literal, values))})"
    if types and "string" not in types:
        try:
            return nested({**{key: root[key] for key in ("$defs", "definitions") if key in root}, **schema})
        except GrammarError:
            if function.strict:
                raise
    elif function.strict and (types != TEXT_ONLY or schema.keys() - _KEPT_AS_TEXT):
        raise GrammarError("A schema that is more than a plain type can't be kept in this model's format.")
    return "value-0"


def _text_rules(name: str, marker: str, follows: str | None) -> dict[str, str]:
    """Rules for text without `marker`, from `name`-0 on; with `follows` that may come behind a marker.

    Rule k is the state in which the last k characters are the first k of the marker, as in the search of
    Knuth, Morris and Pratt (1977). Text may end in each.
    """
    rules = {}
    for state in range(len(marker)):
        choices = ['""']
        watched = ""
        for character in sorted(set(marker)):
            seen = marker[:state] + character
            if seen == marker:
                watched += character
                choices += [f"{_literal(character)} {follows}"] if follows else []
                continue
            reached = next(k for k in range(len(seen), -1, -1) if seen.endswith(marker[:k]))
            if reached:
                watched += character
                choices.append(f"{_literal(character)} {name}-{reached}")
        others = re.sub(r"[\[\]\\]", r"\\\g<0>", watched)
        choices.append(f"[^{others}] {name}-0")
        rules[f"{name}-{state}"] = " | ".join(choices)
    return rules


def _merged(grammars: Sequence[str]) -> dict[str, str]:
    """The rules of all grammars. The root of grammar i is `args{i}-root`."""
    parsed = [_parsed(grammar) for grammar in grammars]
    bodies: dict[str, set[str]] = {}
    for rules in parsed:
        for name, body in rules.items():
            bodies.setdefault(name, set()).add(body)
    # A rule means the same everywhere where it is written the same, down to the last that it refers to.
    shared = {name for name, written in bodies.items() if len(written) == 1} - {"root"}
    while different := {name for name in shared if not _references(*bodies[name]) <= shared}:
        shared -= different
    merged: dict[str, str] = {}
    for number, rules in enumerate(parsed):
        names = {name: f"json-{name}" if name in shared else f"args{number}-{name}" for name in rules}
        merged |= {names[name]: _renamed(body, names) for name, body in rules.items()}
    return merged


def _renamed(body: str, names: Mapping[str, str]) -> str:
    return _TOKEN.sub(lambda token: names.get(token[0], token[0]), body)


def _parsed(grammar: str) -> dict[str, str]:
    _, *parts = _RULE.split(grammar)
    return {
        name: " ".join(body.split("\n")).strip() for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def _references(body: str) -> set[str]:
    return {token for token in _TOKEN.findall(body) if token[0] not in '"[{'}


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
