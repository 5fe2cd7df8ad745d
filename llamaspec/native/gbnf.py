"""GBNF as text: what must not reach llama.cpp's parser, and the places that a grammar's texts come to.

llama.cpp's parser recurses for every group and loops for `{2,1}`. Its matcher ends the process where an
element that names a token follows characters of the same token, so grammars with those are refused.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from llamaspec.errors import GrammarError

MAX_BYTES = 1 << 16
MAX_NESTING = 64
MAX_REPETITIONS = 1024
MAX_TIMES = 2000  # llama.cpp takes what is above for "any number"

_LEXEME = re.compile(
    r"""(?P<space> [ \t\r\n]+ | \#[^\r\n]*)
    | (?P<literal> "(?:\\.|[^"\\])*")
    | (?P<set> \[(?:\\.|[^\]\\])*\])
    | (?P<name> [A-Za-z0-9-]+)
    | (?P<defines> ::=)
    | (?P<times> [*+?] | \{[ \t]*(?P<least>[0-9]{1,9})[ \t]*(?P<range>,[ \t]*(?P<most>[0-9]{1,9})?[ \t]*)?\})
    | (?P<sign> [().|])
    """,
    re.VERBOSE | re.DOTALL,
)


class Lexeme(NamedTuple):
    """A piece of GBNF: `kind` is literal, set, name, defines, times or sign.

    `times` are the least and the most repetitions that it asks for; the most is None for any number.
    """

    kind: str
    text: str
    times: tuple[int, int | None]


def lexemes(text: str) -> Iterator[Lexeme]:
    """The pieces of a grammar, without space and comments. Raises GrammarError where there is none."""
    at = 0
    while at < len(text):
        found = _LEXEME.match(text, at)
        if found is None:
            raise _unreadable(text, at)
        at = found.end()
        kind = str(found.lastgroup)
        if kind != "space":
            yield Lexeme(kind, found[0], _times(found) if kind == "times" else (1, 1))


def check(text: str) -> None:
    """Refuse what llama.cpp's parser does not survive. Whether the rest compiles is for it to say."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise GrammarError("The grammar is not valid Unicode text.") from error
    if size > MAX_BYTES:
        raise GrammarError(f"The grammar is longer than {MAX_BYTES} bytes.")
    if not text.strip():
        raise GrammarError("The grammar is empty: it would allow any text.")
    if "\0" in text:
        raise GrammarError("The grammar holds a NUL character.")
    depth = repetitions = 0
    for lexeme in lexemes(text):
        depth += (lexeme.text == "(") - (lexeme.text == ")")
        if depth > MAX_NESTING:
            raise GrammarError(f"The grammar nests more than {MAX_NESTING} groups.")
        if lexeme.kind == "times":
            repetitions += 1
            least, most = lexeme.times
            if most is not None and most < least:
                raise GrammarError(f"The grammar repeats at least {least} and at most {most} times.")
            if max(least, most or 0) > MAX_TIMES:
                raise GrammarError(f"The grammar repeats more than {MAX_TIMES} times: {lexeme.text}.")
    if repetitions > MAX_REPETITIONS:
        raise GrammarError(
            f"The grammar has {repetitions} optional or repeated parts; at most {MAX_REPETITIONS} are taken."
        )


def recursive_rules(text: str) -> list[str]:
    """The rules of a grammar that compiles which can come back to themselves, or stand between such rules."""
    pieces = list(lexemes(text))
    uses: dict[str, set[str]] = {}
    users: dict[str, set[str]] = {}
    rule = ""
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        if piece.kind == "name":
            if following is not None and following.kind == "defines":
                rule = piece.text
            else:
                uses.setdefault(rule, set()).add(piece.text)
                users.setdefault(piece.text, set()).add(rule)
    return sorted(_on_or_behind_circles(uses) & _on_or_behind_circles(users))


def _on_or_behind_circles(graph: Mapping[str, set[str]]) -> set[str]:
    sorter = TopologicalSorter(graph)
    with contextlib.suppress(CycleError):  # it then still gives all that is before the circles
        sorter.prepare()
    before: set[str] = set()
    while ready := sorter.get_ready():
        before.update(ready)
        sorter.done(*ready)
    return graph.keys() - before


class Positions:
    """Every place in a grammar that a text can come to, each as the start of a grammar of its own.

    `text` is GBNF that, from the rule `start`, reads digits 0 and 1 and then goes on from the place that they
    lead to: they walk down a binary tree, numbered like a heap, from node 0 to one of its last `count` nodes.
    Made from a grammar that compiles. A sequence `a b c` becomes `p ::= a q`, `q ::= b r`, `r ::= c`, so the
    size stays linear.
    """

    def __init__(self, text: str) -> None:
        self._pieces = list(lexemes(text))
        self._at = 0
        self._prefix = "v"
        while self._prefix in text:
            self._prefix += "v"
        self._made = 0
        self._rules: list[str] = []
        self._places: list[str] = []
        while self._at < len(self._pieces):
            name = self._pieces[self._at].text
            self._at += 2
            self._rules.append(f"{name} ::= {self._alternatives()}")
        self.count = len(self._places)
        nodes = [f"{self._prefix}-{node}" for node in range(self.count - 1)] + self._places
        tree = (
            f'{nodes[node]} ::= "0" {nodes[2 * node + 1]} | "1" {nodes[2 * node + 2]}'
            for node in range(self.count - 1)
        )
        self.text = "\n".join((f"root{self._prefix} ::= {nodes[0]}", *tree, *self._rules))
        self.start = f"root{self._prefix}"

    def _alternatives(self) -> str:
        """Reads up to the end of a rule or group; returns what stands for it."""
        heads = [self._sequence()]
        while self._at < len(self._pieces) and self._pieces[self._at].text == "|":
            self._at += 1
            heads.append(self._sequence())
        return " | ".join(heads)

    def _sequence(self) -> str:
        elements: list[str] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            follower = self._pieces[self._at + 1].kind if self._at + 1 < len(self._pieces) else ""
            if piece.text in ("|", ")") or (piece.kind == "name" and follower == "defines"):
                break
            self._at += 1
            if piece.text == "(":
                inner = self._alternatives()
                self._at += 1
                elements.append(self._rule(inner))
            elif piece.kind == "times":
                elements[-1] += piece.text
            else:
                elements.append(piece.text)
        rest = ""
        for element in reversed(elements):
            rest = self._rule(f"{element} {rest}")
            self._places.append(rest)
        return rest or '""'

    def _rule(self, body: str) -> str:
        name = f"{self._prefix}{self._made}"
        self._made += 1
        self._rules.append(f"{name} ::= {body}")
        return name


def _times(found: re.Match[str]) -> tuple[int, int | None]:
    if found["least"] is None:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[found["times"]]
    least = int(found["least"])
    if found["range"] is None:
        return least, least
    return least, None if found["most"] is None else int(found["most"])


def _unreadable(text: str, at: int) -> GrammarError:
    if text[at] in "<!":
        return GrammarError("The grammar names a token (<…>); only characters are taken.")
    return GrammarError(
        f"The grammar does not compile: unexpected {text[at : at + 20]!r}.",
        'It is GBNF and needs a rule "root".',
    )
