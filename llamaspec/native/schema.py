"""JSON schema → GBNF. What a schema asks for is kept or refused, never left out.

The texts of the grammar are JSON that fits the schema, but not all that does is among them: properties come
in the order in which the schema lists them, numbers have at most 16 digits, an `email` or a `uri` is a plain
one. `oneOf` is taken for `anyOf`. Work and output are bounded by the limits below, whatever the schema.
"""

import json
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any
from urllib.parse import unquote

from llamaspec.errors import GrammarError
from llamaspec.native import json_text
from llamaspec.native.gbnf import MAX_BYTES, MAX_TIMES, lexemes
from llamaspec.native.json_text import DIGITS, literal, quoted
from llamaspec.native.patterns import pattern
from llamaspec.native.schema_nodes import BY_TYPE, TYPES, Node, checked, merged, refusal

MAX_DEPTH = 64
MAX_NODES = 4096  # what is referred to counts once, what is merged each time
MAX_GRAMMAR = MAX_BYTES // 2

_COMMON = {
    "space": '(" " | "\\n" [ \\t]{0,20})?',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" space (member ("," space member)* space)? "}"',
    "member": 'string ":" space value',
    "array": '"[" space (value ("," space value)* space)? "]"',
    "string": '"\\"" character* "\\""',
    "character": json_text.STRING_CHARACTER,
    "number": f'integer ("." [0-9]{{1,{DIGITS}}})? ([eE] [-+]? [0-9]{{1,2}})?',
    "integer": f'"-"? ("0" | [1-9] [0-9]{{0,{DIGITS - 1}}})',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "atom": "[A-Za-z0-9_+-]{1,32}",
    "label": "[a-z0-9] ([a-z0-9-]{0,61} [a-z0-9])?",
    "octet": '"25" [0-5] | "2" [0-4] [0-9] | "1" [0-9]{2} | [1-9]? [0-9]',
    "hours": '[0-9]{1,4} "H" minutes? | minutes | seconds',
    "minutes": '[0-9]{1,4} "M" seconds?',
    "seconds": '[0-9]{1,4} "S"',
    "day": (
        '("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])'
        ' | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30")'
        ' | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])'
    ),
    "date": '[12] [0-9]{3} "-" day',
    "time": 'clock ("." [0-9]{1,6})? ("Z" | [+-] clock-hour ":" [0-5] [0-9])',
    "clock": 'clock-hour ":" [0-5] [0-9] ":" [0-5] [0-9]',
    "clock-hour": '[01] [0-9] | "2" [0-3]',
}
_FORMATS = {
    "date": "date",
    "time": "time",
    "date-time": 'date "T" time',
    "duration": '"P" ([0-9]{1,4} "D" ("T" hours)? | "T" hours)',
    "uuid": '[0-9a-f]{8} ("-" [0-9a-f]{4}){3} "-" [0-9a-f]{12}',
    "email": 'atom ("." atom){0,4} "@" (label "."){1,5} [a-z]{2,12}',
    "hostname": 'label ("." label){0,8}',
    "ipv4": 'octet ("." octet){3}',
    "ipv6": '([0-9a-f]{1,4} ":"){7} [0-9a-f]{1,4}',
    "uri": (
        '"http" "s"? "://" label ("." label){0,8} (":" [1-9] [0-9]{0,3})?'
        ' ("/" [A-Za-z0-9._~/&=+-]*)? ("?" [A-Za-z0-9._~/&=+-]*)? ("#" [A-Za-z0-9._~/&=+-]*)?'
    ),
}


def schema_to_grammar(schema: str) -> str:
    """GBNF for the texts that a JSON schema allows. Raises GrammarError for what can't be expressed."""
    if len(schema.encode("utf-8", "replace")) > MAX_BYTES:
        raise GrammarError(f"The JSON schema is longer than {MAX_BYTES} bytes.")
    try:
        parsed = json.loads(schema, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"The JSON schema is not JSON: {error}.") from error
    if not isinstance(parsed, dict):
        raise GrammarError("A JSON schema is an object.", "Give at least {} for any JSON value.")
    try:
        return _Converter(parsed).grammar()
    except RecursionError:
        raise refusal("has names or values with too many common beginnings") from None


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is no number that can be used")
    return value


class _Converter:
    def __init__(self, schema: Node) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._by_body: dict[str, str] = {}
        self._referred: dict[str, str] = {}
        self._bytes = self._nodes = self._depth = 0

    def grammar(self) -> str:
        rules = {"root": self._value(self._schema), **self._rules}
        pending = list(rules.values())
        while pending:
            for lexeme in lexemes(pending.pop()):
                if lexeme.kind == "name" and lexeme.text not in rules:
                    rules[lexeme.text] = _COMMON[lexeme.text]
                    pending.append(_COMMON[lexeme.text])
        return "\n".join(f"{name} ::= {body}" for name, body in rules.items())

    def _rule(self, body: str) -> str:
        """The name of a rule with this body."""
        if body not in self._by_body:
            self._by_body[body] = self._fill(f"r{len(self._rules)}", body)
        return self._by_body[body]

    def _fill(self, name: str, body: str) -> str:
        self._rules[name] = body
        self._bytes += len(name) + len(body)
        if self._bytes > MAX_GRAMMAR:
            raise refusal(f"makes a grammar of more than {MAX_GRAMMAR} bytes")
        return name

    def _value(self, schema: Node | bool) -> str:
        """The name of a rule for the values that a schema allows."""
        if isinstance(schema, bool):
            if schema:
                return "value"
            raise refusal("allows no value at all")
        self._nodes += 1
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise refusal(f"is more than {MAX_DEPTH} levels deep")
        if self._nodes > MAX_NODES:
            raise refusal(f"has more than {MAX_NODES} parts")
        node = checked(schema)
        name = self._reference(node["$ref"]) if len(node) == 1 and "$ref" in node else self._combined(node)
        self._depth -= 1
        return name

    def _reference(self, pointer: str) -> str:
        if pointer not in self._referred:
            name = self._referred[pointer] = f"r{len(self._rules)}"
            self._rules[name] = ""
            self._fill(name, self._value(self._target(pointer)))
        return self._referred[pointer]

    def _target(self, pointer: str) -> Node | bool:
        """The schema that a `$ref` names."""
        if not pointer.startswith("#"):
            raise refusal(f"refers to another address, and none is fetched: {pointer[:80]!r}")
        target: Any = self._schema
        for step in pointer[1:].split("/")[1:]:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
                target = target[int(key)]
            elif isinstance(target, dict) and key in target:
                target = target[key]
            else:
                raise refusal(f"refers to what it does not have: {pointer[:80]!r}")
        if not isinstance(target, dict | bool) or pointer[1:2] not in ("", "/"):
            raise refusal(f"refers to what is not a schema: {pointer[:80]!r}")
        return target

    def _combined(self, node: Node) -> str:
        """A node that other nodes have a part in, or a plain one."""
        for key in ("anyOf", "oneOf"):
            if key in node:
                rest = {name: value for name, value in node.items() if name != key}
                return self._any([self._value(self._both(one, rest) if rest else one) for one in node[key]])
        if "$ref" in node or "allOf" in node:
            parts = [*node.pop("allOf", []), *([{"$ref": node.pop("$ref")}] if "$ref" in node else [])]
            for part in parts:
                node = self._both(node, part)
            return self._value(node)
        if node.pop("nullable", False):
            return self._any([self._combined(node), "null"])
        if "const" in node:
            node = self._both({"enum": [node.pop("const")]}, node)
        if "enum" in node:
            return self._constants(node)
        return self._plain(node)

    def _both(self, one: Node | bool, other: Node | bool) -> Node:
        """What both schemas ask for, as one node."""
        if one is False or other is False:
            raise refusal("allows no value at all")
        self._nodes += 1
        first, second = ({} if schema is True else checked(schema) for schema in (one, other))
        if not first or not second:
            return first or second
        return merged(self._without_reference(first), self._without_reference(second))

    def _without_reference(self, node: Node) -> Node:
        """A node that is only a reference, as the node that it refers to."""
        seen: set[str] = set()
        while set(node) == {"$ref"} and node["$ref"] not in seen:
            seen.add(node["$ref"])
            target = self._target(node["$ref"])
            if isinstance(target, bool):
                return {} if target else {"enum": []}
            node = checked(target)
        return node

    def _any(self, names: list[str]) -> str:
        alternatives = list(dict.fromkeys(names))
        return alternatives[0] if len(alternatives) == 1 else self._rule(" | ".join(alternatives))

    def _constants(self, node: Node) -> str:
        """Values that are listed, as far as they are of a type that is asked for."""
        if others := node.keys() - {"enum", "type"}:
            raise refusal(f"asks for more of listed values, with {min(others)!r}")
        wanted = node.get("type", list(TYPES))
        wanted = {wanted} if isinstance(wanted, str) else set(wanted)
        kept = [quoted(value) for value in node["enum"] if wanted & _types_of(value)]
        if not kept:
            raise refusal("lists no value of the type that it asks for")
        return self._rule(json_text.one_of(kept, self._rule))

    def _plain(self, node: Node) -> str:
        """A node that stands for itself: of the types it names, or of those that it says something of."""
        types = node.get("type") or [kind for kind, keys in BY_TYPE.items() if node.keys() & set(keys)]
        types = [types] if isinstance(types, str) else types
        if not types:
            return "value"
        return self._any([self._of_type(kind, node) for kind in types])

    def _of_type(self, kind: str, node: Node) -> str:
        if kind == "object":
            return self._object(node)
        if kind == "array":
            return self._array(node)
        if kind == "string":
            return self._string(node)
        if kind in ("number", "integer"):
            return self._number(node, kind)
        return kind

    def _object(self, node: Node) -> str:
        more = node.get("additionalProperties", True)
        required = node.get("required", [])
        listed = node.get("properties", {})
        properties = {**listed, **{name: more for name in required if name not in listed}}
        if impossible := [name for name in required if properties[name] is False]:
            raise refusal(f"requires {impossible[0]!r}, which it does not allow")
        few = [key for key in ("propertyNames", "minProperties", "maxProperties") if key in node]
        if not properties:
            return self._map(node, more)
        if few:
            raise refusal(f"lists properties and asks for more with {few[0]!r}")
        members = [
            (self._rule(f"{literal(quoted(name) + ':')} space {self._value(value)}"), name in required)
            for name, value in properties.items()
            if value is not False
        ]
        rest = ""
        ends = []
        if "additionalProperties" in node and more is not False:
            keys = {quoted(name)[1:-1] for name in properties}
            key = self._rule(json_text.key_but(keys, self._rule, "character"))
            other = self._rule(f'{key} ":" space {self._value(more)}')
            rest = self._rule(f'("," space {other})*')
            ends = [f"{other} {rest}"]
        # From the last to the first: what may follow a member, and what may come first.
        for member, needed in reversed(members):
            ends = [f"{member} {rest}", *([] if needed else ends)]
            rest = self._rule(f'"," space {member} {rest}' if needed else f'("," space {member})? {rest}')
        if not ends:
            return self._rule('"{" space "}"')
        some = "" if any(needed for _, needed in members) else "?"
        return self._rule(f'"{{" space (({" | ".join(ends)}) space){some} "}}"')

    def _map(self, node: Node, more: Node | bool) -> str:
        """An object of which only the other properties are told."""
        least, most = node.get("minProperties", 0), node.get("maxProperties")
        if more is False:
            most = 0
        key = "string"
        if "propertyNames" in node:
            key = self._value(self._both({"type": "string"}, node["propertyNames"]))
        if most == 0 and not least:
            return self._rule('"{" space "}"')
        if key == "string" and more in (True, {}) and not least and most is None:
            return "object"
        member = self._rule(f'{key} ":" space {self._value(more)}')
        return self._rule(f'"{{" space {self._several(member, least, most)} "}}"')

    def _array(self, node: Node) -> str:
        least, most = node.get("minItems", 0), node.get("maxItems")
        if node.get("uniqueItems") and (most is None or most > 1):
            raise refusal("asks for items that differ, which can't be kept")
        first = [self._value(item) for item in node.get("prefixItems", [])[:most]]
        items = node.get("items", True)
        if first and ("items" not in node or items is False) and least <= len(first):
            most = len(first)
        if items is False:
            most = len(first)
        least = max(least, len(first))
        if most == 0 and not least:
            return self._rule('"[" space "]"')
        if not first:
            if items is True and not least and most is None:
                return "array"
            return self._rule(f'"[" space {self._several(self._value(items), least, most)} "]"')
        listed = ' "," space '.join(first)
        further = _times(least - len(first), None if most is None else most - len(first))
        if further != "{0,0}":
            listed += f' ("," space {self._value(items)}){further}'
        return self._rule(f'"[" space {listed} space "]"')

    def _several(self, part: str, least: int, most: int | None) -> str:
        """From `least` to `most` parts with commas between them, and space after the last."""
        _times(least, most)
        further = _times(max(least - 1, 0), None if most is None else most - 1)
        return f'({part} ("," space {part}){further} space){"" if least else "?"}'

    def _string(self, node: Node) -> str:
        asked = [key for key in ("pattern", "format", "minLength", "maxLength") if key in node]
        if "pattern" in node or "format" in node:
            if len(asked) > 1:
                raise refusal(
                    f"asks for {asked[0]!r} and {asked[1]!r} of one string, which can't be kept together"
                )
            if "pattern" in node:
                return self._rule(pattern(node["pattern"], self._rule, "character"))
            if node["format"] not in _FORMATS:
                raise GrammarError(
                    f"The JSON schema's format {node['format'][:80]!r} can't be kept.",
                    f"Supported: {', '.join(_FORMATS)}.",
                )
            return self._rule(f'"\\"" {_FORMATS[node["format"]]} "\\""')
        if not asked:
            return "string"
        return self._rule(f'"\\"" character{_times(node.get("minLength", 0), node.get("maxLength"))} "\\""')

    def _number(self, node: Node, kind: str) -> str:
        step = node.get("multipleOf", 1)
        if step != 1:
            raise refusal("asks for multiples of a number, which can't be kept")
        if "multipleOf" in node:
            kind = "integer"
        lows = [
            (Decimal(str(node[key])), key[0] == "e") for key in ("minimum", "exclusiveMinimum") if key in node
        ]
        highs = [
            (Decimal(str(node[key])), key[0] != "e") for key in ("maximum", "exclusiveMaximum") if key in node
        ]
        if not lows and not highs:
            return kind
        low, above = max(lows) if lows else (None, False)
        high, at_most = min(highs) if highs else (None, True)
        if kind == "number":
            body = json_text.number(low, high, above, not at_most)
        else:
            body = json_text.integer(
                None
                if low is None
                else int(low.to_integral_value(ROUND_FLOOR if above else ROUND_CEILING)) + above,
                None
                if high is None
                else int(high.to_integral_value(ROUND_FLOOR if at_most else ROUND_CEILING)) - (not at_most),
            )
        if not body:
            raise refusal(f"allows no {kind}: its bounds leave none")
        return self._rule(body)


def _times(least: int, most: int | None) -> str:
    """A repetition as GBNF writes it."""
    if most is not None and least > most:
        raise refusal(f"asks for at least {least} and at most {most} at once")
    if max(least, most or 0) > MAX_TIMES:
        raise refusal(f"asks for a length of {max(least, most or 0)}; at most {MAX_TIMES} can be kept")
    return f"{{{least},{'' if most is None else most}}}"


def _types_of(value: object) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"number", "integer"} if value == int(value) else {"number"}
    return {{str: "string", list: "array", dict: "object", type(None): "null"}[type(value)]}
