"""Regular expressions of JSON schemas (ECMA 262, without what looks around or back) → GBNF."""

import re
from collections.abc import Callable

from llamaspec.errors import GrammarError
from llamaspec.native.gbnf import MAX_TIMES
from llamaspec.native.json_text import LAST, Ranges, characters, complement, normal

MAX_DEPTH = 32

_DIGIT: Ranges = [(0x30, 0x39)]
_WORD: Ranges = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)]
_SPACE: Ranges = [(0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x2028, 0x2029), (0xFEFF, 0xFEFF)]
_CLASSES = {
    **{"d": _DIGIT, "w": _WORD, "s": _SPACE},
    **{"D": complement(_DIGIT), "W": complement(_WORD), "S": complement(_SPACE)},
}
_ANY_IN_LINE = complement([(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)])
_CONTROLS = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D, "0": 0x00}
_TIMES = re.compile(r"(?:([*+?])|\{([0-9]{1,6})(?:(,)([0-9]{1,6})?)?\})\??")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")
_GROUP = re.compile(r"\((?:\?:|\?P?<[A-Za-z_][A-Za-z_0-9]*>)?(?!\?)")


def pattern(source: str, rule: Callable[[str], str], character: str) -> str:
    """GBNF for the JSON strings that a pattern is found in, with their quotes.

    `rule` makes a rule and returns its name; `character` names the rule of any one character of a string.
    Raises GrammarError for what is malformed or can't be expressed.
    """
    return f'"\\"" ({_Reader(source, rule, character).whole()}) "\\""'


class _Reader:
    def __init__(self, source: str, rule: Callable[[str], str], character: str) -> None:
        self._source = source
        self._rule = rule
        self._character = character
        self._at = 0
        self._depth = 0

    def whole(self) -> str:
        found = self._alternatives(outermost=True)
        if self._at < len(self._source):
            raise self._refusal("a closing bracket too many")
        return found

    def _alternatives(self, *, outermost: bool = False) -> str:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._refusal("too many groups in each other")
        alternatives = [self._sequence(outermost)]
        while self._take("|"):
            alternatives.append(self._sequence(outermost))
        self._depth -= 1
        return " | ".join(alternatives)

    def _sequence(self, outermost: bool) -> str:
        """Up to `|`, `)` or the end. Where an outermost one is not anchored, any text may stand around it."""
        parts = [] if not outermost or self._take("^") else [f"{self._character}*"]
        anchored = False
        while not anchored and self._at < len(self._source) and self._source[self._at] not in "|)":
            anchored = outermost and self._take("$")
            if not anchored:
                parts.append(self._repeated(self._atom()))
        if outermost and not anchored:
            parts.append(f"{self._character}*")
        return " ".join(parts) or '""'

    def _repeated(self, atom: str) -> str:
        found = _TIMES.match(self._source, self._at)
        if found is None:
            return atom
        self._at = found.end()
        sign, least, ranged, most = found.groups()
        if sign:
            return atom + sign
        if max(int(least), int(most or 0)) > MAX_TIMES or (most and int(most) < int(least)):
            raise self._refusal(f"{found[0]} times")
        return f"{atom}{{{int(least)}{',' if ranged else ''}{int(most) if most else ''}}}"

    def _atom(self) -> str:
        character = self._source[self._at]
        if character == "(":
            return self._group()
        if character in "^$*+?{}":
            raise self._refusal(f"{character!r} at {self._at}")
        self._at += 1
        if character == "[":
            return self._one_of(self._set())
        if character == ".":
            return self._one_of(_ANY_IN_LINE)
        if character == "\\":
            return self._one_of(self._escape())
        return self._one_of([(ord(character), ord(character))])

    def _group(self) -> str:
        found = _GROUP.match(self._source, self._at)
        if found is None:
            raise self._refusal("a group that looks around, or has flags")
        self._at = found.end()
        inner = self._rule(self._alternatives())
        if not self._take(")"):
            raise self._refusal("a group that is not closed")
        return inner

    def _set(self) -> Ranges:
        negated = self._take("^")
        ranges: Ranges = []
        while not self._take("]"):
            low = self._member()
            if (
                len(low) == 1
                and self._source[self._at : self._at + 1] == "-"
                and self._source[self._at + 1 : self._at + 2] != "]"
            ):
                self._at += 1
                high = self._member()
                if (
                    low[0][0] != low[0][1]
                    or len(high) != 1
                    or high[0][0] != high[0][1]
                    or high[0][0] < low[0][0]
                ):
                    raise self._refusal("a range of characters that is none")
                ranges.append((low[0][0], high[0][0]))
            else:
                ranges += low
        return complement(normal(ranges)) if negated else normal(ranges)

    def _member(self) -> Ranges:
        if self._at >= len(self._source):
            raise self._refusal("a set of characters that is not closed")
        character = self._source[self._at]
        self._at += 1
        if character == "\\":
            return [(0x08, 0x08)] if self._take("b") else self._escape()
        return [(ord(character), ord(character))]

    def _escape(self) -> Ranges:
        """What follows a backslash."""
        found = _HEX.match(self._source, self._at)
        if found is not None:
            self._at = found.end()
            code = int(next(group for group in found.groups() if group), 16)
            if code > LAST:
                raise self._refusal("a character that there is not")
            return [(code, code)]
        letter = self._source[self._at : self._at + 1]
        self._at += 1
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter in _CONTROLS and not self._source[self._at : self._at + 1].isdigit():
            return [(_CONTROLS[letter], _CONTROLS[letter])]
        if not letter or (letter.isalnum() and letter.isascii()):
            raise self._refusal(f"the escape \\{letter}")
        return [(ord(letter), ord(letter))]

    def _one_of(self, ranges: Ranges) -> str:
        found = characters(ranges)
        if not found:
            raise self._refusal("a character that no JSON string here can hold")
        return found

    def _take(self, sign: str) -> bool:
        taken = self._source.startswith(sign, self._at)
        self._at += taken
        return taken

    def _refusal(self, what: str) -> GrammarError:
        return GrammarError(f"The JSON schema's pattern {self._source[:80]!r} can't be kept: {what}.")
