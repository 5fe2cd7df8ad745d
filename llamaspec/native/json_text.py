"""GBNF for pieces of JSON text: literals, sets of characters, words, numbers within bounds."""

import json
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from llamaspec.errors import GrammarError

Ranges = list[tuple[int, int]]
"""Code points, as ranges with both ends, sorted and apart."""

LAST = 0x10FFFF
DIGITS = 16
"""Most digits before and after the point of a number: more are not exact in other languages' numbers."""

_UNSAFE: Ranges = [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F), (0xD800, 0xDFFF)]
_ESCAPES = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r", 0x22: '"', 0x5C: "\\"}

STRING_CHARACTER = (
    r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt]'
    r' | "u" ([0-9a-cA-Ce-fE-F] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}))'
)
"""One character inside of a JSON string. Escaped halves of characters are left out: few readers take them."""


def literal(text: str) -> str:
    """GBNF for just this text."""
    return '"' + "".join(_escaped(ord(character)) for character in text) + '"'


def quoted(value: object) -> str:
    """A value as JSON writes it, as plain as possible."""
    return json.dumps(value, ensure_ascii=False)


def normal(ranges: Iterable[tuple[int, int]]) -> Ranges:
    merged: Ranges = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def complement(ranges: Ranges) -> Ranges:
    rest: Ranges = []
    begin = 0
    for low, high in normal(ranges):
        if low > begin:
            rest.append((begin, low - 1))
        begin = high + 1
    return [*rest, (begin, LAST)] if begin <= LAST else rest


def without(ranges: Ranges, taken: Ranges) -> Ranges:
    return complement([*complement(ranges), *taken])


def characters(ranges: Ranges) -> str:
    """GBNF for one of these characters inside of a JSON string, escaped where JSON wants it; "" for none."""
    plain = without(ranges, _UNSAFE)
    alternatives = [_set(plain)] if plain else []
    for code, letter in _ESCAPES.items():
        if any(low <= code <= high for low, high in ranges):
            alternatives.append(literal("\\" + letter))
    return (
        alternatives[0] if len(alternatives) == 1 else f"({' | '.join(alternatives)})" if alternatives else ""
    )


def one_of(texts: Iterable[str], rule: Callable[[str], str]) -> str:
    """GBNF for one of several texts, sharing their beginnings. `rule` makes a rule and returns its name."""

    def level(group: list[str], depth: int) -> str:
        if len(group) == 1:
            return literal(group[0][depth:])
        end = depth
        while len({text[end : end + 1] for text in group}) == 1 and end < len(group[0]):
            end += 1
        branches: dict[str, list[str]] = {}
        for text in group:
            branches.setdefault(text[end : end + 1], []).append(text)
        body = " | ".join(level(branch, end) for branch in branches.values())
        return f"{literal(group[0][depth:end])} {rule(body)}"

    return level(list(dict.fromkeys(texts)), 0)


def key_but(names: Iterable[str], rule: Callable[[str], str], character: str) -> str:
    """GBNF for a JSON string that is none of `names`; `character` names the rule of one character in it."""
    taken = {name + '"' for name in names}

    def level(group: set[str]) -> str:
        # Nothing is escaped up to where a key differs from all names, or it could spell one of them.
        following: dict[str, set[str]] = {}
        for text in group:
            if text and (text == '"' or not any(low <= ord(text[0]) <= high for low, high in _UNSAFE)):
                following.setdefault(text[0], set()).add(text[1:])
        alternatives = [
            f"{literal(first)} {rule(level(rest))}" for first, rest in following.items() if first != '"'
        ]
        others = "".join(_member(ord(first)) for first in following)
        alternatives.append(f'[^{others}"\\\\\\x7F\\x00-\\x1F] {character}* "\\""')
        if '"' not in following:
            alternatives.append('"\\""')
        return " | ".join(alternatives)

    return f'"\\"" {rule(level(taken))}'


def integer(low: int | None, high: int | None) -> str:
    """GBNF for the integers of at most 16 digits from `low` to `high`; "" where there are none."""
    most = 10**DIGITS - 1
    low, high = max(-most, -most if low is None else low), min(most, most if high is None else high)
    if low > high:
        return ""
    alternatives = []
    if low < 0:
        below = _natural(max(1, -high), -low)
        alternatives.append(f'"-" ({below})')
    if high >= 0:
        alternatives.append(_natural(max(0, low), high))
    return " | ".join(alternatives)


def number(low: Decimal | None, high: Decimal | None, above: bool, below: bool) -> str:
    """GBNF for the numbers from `low` to `high`, written without exponent; "" where there are none.

    With `above` the number is more than `low`, with `below` it is less than `high`.
    """
    if any(bound is not None and len(_decimals(bound % 1)) >= DIGITS for bound in (low, high)):
        raise GrammarError(f"The JSON schema has a bound with more than {DIGITS - 1} decimals.")
    most = Decimal(10**DIGITS)
    low, above = (-most, True) if low is None or low < -most else (low, above)
    high, below = (most, True) if high is None or high > most else (high, below)
    alternatives = []
    if low < 0 and (part := _magnitude(max(-high, Decimal(0)), -low, below and high <= 0, above)):
        alternatives.append(f'"-" ({part})')
    if high > 0 or (high == 0 and not below):
        alternatives.append(_magnitude(max(low, Decimal(0)), high, above and low >= 0, below))
    return " | ".join(part for part in alternatives if part)


def _magnitude(low: Decimal, high: Decimal, above: bool, below: bool) -> str:
    """Numbers without a sign. Both bounds are at least 0 and at most 10**16."""
    if low > high or (low == high and (above or below)):
        return ""
    first, last = int(low), int(high)
    floor, ceiling = _decimals(low - first), _decimals(high - last)
    every = f'("." [0-9]{{1,{DIGITS}}})?'
    if first == last:
        middle = _fractions(floor, ceiling, above, below)
        return f"{literal(str(first))} ({middle})" if middle else ""
    alternatives = []
    if start := _fractions(floor, None, above, False):
        alternatives.append(f"{literal(str(first))} ({start})")
    if first + 1 <= last - 1:
        alternatives.append(f"({_natural(first + 1, last - 1)}) {every}")
    if end := _fractions("", ceiling, False, below):
        alternatives.append(f"{literal(str(last))} ({end})")
    return " | ".join(alternatives)


def _fractions(floor: str, ceiling: str | None, above: bool, below: bool) -> str:
    """What may follow the whole part where the digits behind the point lie between two decimals."""
    low = floor or "0"
    digits: list[str] = []
    room = DIGITS - max(len(low), len(ceiling or ""))
    if ceiling is None:
        digits = _after(low, room, above)
    else:
        width = max(len(low), len(ceiling or "0"))
        low, high = low.ljust(width, "0"), ceiling.ljust(width, "0")
        shared = 0
        while shared < width and low[shared] == high[shared]:
            shared += 1
        if low > high:
            return ""
        head = literal(low[:shared]) + " " if shared else ""
        if shared == width:
            digits = [] if above or below else [f'{literal(low)} "0"{{0,{room}}}']
        else:
            tail, top = low[shared + 1 :], high[shared + 1 :]
            parts = [f"{literal(low[shared])} {part}" for part in _after(tail, room, above)]
            if int(low[shared]) + 1 < int(high[shared]):
                parts.append(
                    f"[{int(low[shared]) + 1}-{int(high[shared]) - 1}] [0-9]{{0,{width - shared - 1 + room}}}"
                )
            parts += [f"{literal(high[shared])} {part}" for part in _before(top, room, below)]
            digits = [head + part for part in parts]
    whole = (
        not floor.strip("0") and not above and not (ceiling is not None and below and not ceiling.strip("0"))
    )
    with_point = f'"." ({" | ".join(digits)})' if digits else ""
    if whole:
        return f"{with_point} |" if with_point else '""'
    return with_point


def _after(floor: str, room: int, above: bool) -> list[str]:
    """Digits behind which the decimal is at least `floor`, or more with `above`, and those that follow."""
    parts = [
        f"{literal(floor[:at])} [{int(digit) + 1}-9] [0-9]{{0,{len(floor) - at - 1 + room}}}"
        for at, digit in enumerate(floor)
        if digit < "9"
    ]
    rest = f'"0"{{0,{room - 1}}} [1-9] [0-9]{{0,{room}}}' if above else f"[0-9]{{0,{room}}}"
    return [*parts, f"{literal(floor)} {rest}"]


def _before(ceiling: str, room: int, below: bool) -> list[str]:
    """Digits with which the decimal is at most `ceiling`, or less with `below`."""
    parts = [
        f"{literal(ceiling[:at])} [0-{int(digit) - 1}] [0-9]{{0,{len(ceiling) - at - 1 + room}}}"
        for at, digit in enumerate(ceiling)
        if digit > "0"
    ]
    return parts if below else [*parts, f'{literal(ceiling)} "0"{{0,{room}}}']


def _decimals(fraction: Decimal) -> str:
    return format(fraction, "f").partition(".")[2].rstrip("0")


def _natural(low: int, high: int) -> str:
    """Integers from `low` to `high`, both at least 0."""
    alternatives = []
    for length in range(len(str(low)), len(str(high)) + 1):
        least = max(low, 10 ** (length - 1) if length > 1 else 0)
        most = min(high, 10**length - 1)
        alternatives += _between(str(least), str(most))
    return " | ".join(alternatives)


def _between(low: str, high: str) -> list[str]:
    """Digits from `low` to `high`, which are of the same length and in order."""
    length = len(low)
    if not low:
        return []
    if length == 1:
        return [_digits(low, high)]
    if low[0] == high[0]:
        return [f"{literal(low[0])} ({' | '.join(_between(low[1:], high[1:]))})"]
    rest = length - 1
    parts = []
    begin, end = int(low[0]), int(high[0])
    if low[1:].strip("0"):
        parts.append(f"{literal(low[0])} ({' | '.join(_between(low[1:], '9' * rest))})")
        begin += 1
    if high[1:].strip("9"):
        parts.append(f"{literal(high[0])} ({' | '.join(_between('0' * rest, high[1:]))})")
        end -= 1
    if begin <= end:
        parts.append(f"{_digits(str(begin), str(end))} [0-9]{{{rest}}}")
    return parts


def _digits(low: str, high: str) -> str:
    return f"[{low}-{high}]" if low < high else literal(low)


def _set(ranges: Sequence[tuple[int, int]]) -> str:
    pieces = (_member(low) if low == high else f"{_member(low)}-{_member(high)}" for low, high in ranges)
    return f"[{''.join(pieces)}]"


def _member(code: int) -> str:
    return (
        chr(code)
        if chr(code).isascii() and chr(code).isalnum()
        else f"\\x{code:02X}"
        if code < 0x80
        else f"\\U{code:08X}"
    )


def _escaped(code: int) -> str:
    if chr(code) in '"\\':
        return "\\" + chr(code)
    return chr(code) if code >= 0x20 and code != 0x7F else f"\\x{code:02X}"
