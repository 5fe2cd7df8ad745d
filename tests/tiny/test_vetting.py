"""Grammars tried out in a child process: what passes, what is refused, what is left behind."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from gguf_files import tiny_llama

from llamaspec.errors import ClosedError, GrammarError
from llamaspec.native import gbnf
from llamaspec.native.gbnf import MAX_BYTES, MAX_NESTING, MAX_TIMES, Positions, recursive_rules
from llamaspec.native.grammar import NativeGrammar, schema_to_grammar
from llamaspec.native.model import Model
from llamaspec.native.vetting import GrammarVetter

JSON = schema_to_grammar("{}")
GOOD = {
    "json": JSON,
    "a literal": 'root ::= "the " ("hen" | "rat")',
    "arithmetic": 'root ::= term ([-+*/] term)*\nterm ::= [0-9]+ | "(" root ")"',
    "a list": 'root ::= ("- " [^\\n]+ "\\n"){1,20}',
    "any text": "root ::= .*",
    "brackets in a literal": 'root ::= "' + "(" * 200 + '" # and ((((((( in a comment',
    "twenty fields": schema_to_grammar(
        '{"properties": {'
        + ", ".join(f'"field {i}": {{"type": "integer", "maximum": {i}}}' for i in range(20))
        + "}}"
    ),
}
HOSTILE = {
    "nothing": " ",
    "left recursion": 'root ::= root "a" | "a"',
    "left recursion that is not seen": 'root ::= "n" a | [a-z]*\na ::= b a "x" | ""\nb ::= c\nc ::= "z" | ""',
    "many optional parts": "root ::= " + '"a"? "b"? ' * 100,
    "many optional parts out of sight": 'root ::= [a-z]* "!" ' + '"a"? ' * 120,
    "twice as many ways each time": 'root ::= "a" root "x" | "a" root "y" | "b"',
    "the same, out of sight": 'root ::= "secret" e | [a-z]*\ne ::= "a" e "x" | "a" e "y" | "b"',
    "repetitions of repetitions": 'root ::= a{0,1000}\na ::= b{0,1000}\nb ::= c{0,1000}\nc ::= "x"?',
    "too many repetitions": 'root ::= "a"{1000000}',
    "an endless count": 'root ::= ("a"{2 #}\n,1})',
    "nested groups": "root ::= " + "(" * 60_000,
    "a token in place of characters": 'root ::= "t" <[5]>',
    "no such token": 'root ::= "t" !<nothing>',
    "a character that there is not": 'root ::= "\\UFFFFFFFF"',
    "a long name that is not defined": "root ::= " + "a" * 60_000,
    "an open literal": 'root ::= "a',
    "an open set": "root ::= [a-",
    "a bad escape": 'root ::= "\\xZZ"',
    "NUL": 'root ::= "\0"',
    "half a character": 'root ::= "\ud800"',
    "too long": 'root ::= "' + "a" * MAX_BYTES + '"',
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="module")
def llama(path: Path) -> Iterator[Model]:
    with Model(path) as model:
        yield model


@pytest.fixture(scope="module")
def vetter(path: Path) -> Iterator[GrammarVetter]:
    with GrammarVetter(path, seconds=1.0) as vetter:
        yield vetter


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "vetting_child" in " ".join(child.cmdline())]


@pytest.mark.parametrize("name", GOOD)
def test_good_grammars_pass(vetter: GrammarVetter, llama: Model, name: str) -> None:
    vetter.check(GOOD[name])
    NativeGrammar(llama, GOOD[name]).close()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_are_refused_and_the_next_one_is_tried(vetter: GrammarVetter, name: str) -> None:
    with pytest.raises(GrammarError):
        vetter.check(HOSTILE[name])
    vetter.check(f'root ::= "after {name}"')


def test_memory_is_bounded(path: Path) -> None:
    with GrammarVetter(path, seconds=60.0, max_memory=32 << 20) as vetter:
        with pytest.raises(GrammarError):
            vetter.check(HOSTILE["left recursion that is not seen"])
        vetter.check(JSON)


def test_what_is_known_to_be_good_needs_no_child(path: Path) -> None:
    before = {child.pid for child in children()}
    with GrammarVetter(path) as vetter:
        vetter.check(JSON)
        [child] = [child for child in children() if child.pid not in before]
        child.kill()
        child.wait()
        vetter.check(JSON)
        assert {child.pid for child in children()} <= before
        with pytest.raises(GrammarError):  # the first that would need it finds it gone
            vetter.check('root ::= "other"')
        vetter.check('root ::= "other"')


def test_nothing_is_left_behind(path: Path) -> None:
    before = {child.pid for child in children()}
    vetter = GrammarVetter(path)
    vetter.close()
    vetter.close()
    assert {child.pid for child in children()} <= before
    with pytest.raises(ClosedError):
        vetter.check(JSON)


def test_closing_ends_a_check_that_is_under_way(path: Path) -> None:
    vetter = GrammarVetter(path, seconds=100.0)
    vetter.check(JSON)
    begun = threading.Event()

    def check() -> None:
        begun.set()
        vetter.check(HOSTILE["many optional parts"])

    with ThreadPoolExecutor() as threads:
        checking = threads.submit(check)
        begun.wait()
        vetter.close()
        assert isinstance(checking.exception(), ClosedError)


def test_threads_share_it(vetter: GrammarVetter) -> None:
    def outcome(text: str) -> bool:
        try:
            vetter.check(text)
        except GrammarError:
            return False
        return True

    asked = [text for i in range(6) for text in (f'root ::= "{i}" [a-z]*', f'root ::= "{i}', JSON)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(outcome, asked)) == [True, False, True] * 6


def test_a_vocabulary_that_does_not_load_refuses_everything(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"nothing")
    with GrammarVetter(tmp_path / "model.gguf") as vetter:
        for _ in range(2):
            with pytest.raises(GrammarError, match="does not work here"):
                vetter.check(JSON)


def first_characters(model: Model, grammar: NativeGrammar) -> str:
    letters = np.array([model.tokenize(letter)[0] for letter in "abcde"])
    return "".join("abcde"[at] for at in np.flatnonzero(grammar.allowed(letters)))


def test_every_place_of_a_grammar_can_be_gone_to(llama: Model) -> None:
    text = 'root ::= "a" ("b" | x "c")* "d" # twice\n\nx ::= [e]?\n'
    positions = Positions(text)
    zero, one = (llama.tokenize(digit)[0] for digit in "01")
    states = {0: NativeGrammar.unchecked(llama, positions.text, positions.start)}
    for node in range(positions.count - 1):
        for digit, token in enumerate((zero, one)):
            states[2 * node + 1 + digit] = states[node].copy()
            states[2 * node + 1 + digit].accept(token)
    found = [
        first_characters(llama, states[node]) for node in range(positions.count - 1, 2 * positions.count - 1)
    ]
    assert sorted(found) == sorted(["a", "bcde", "d", "b", "ce", "c", "e"])


@pytest.mark.parametrize("name", GOOD)
def test_places_make_a_grammar_that_compiles(llama: Model, name: str) -> None:
    positions = Positions(GOOD[name])
    assert positions.count >= 1
    NativeGrammar.unchecked(llama, positions.text, positions.start).close()


def test_limits_of_what_is_parsed() -> None:
    gbnf.check("root ::= " + "(" * MAX_NESTING + '"a"' + ")" * MAX_NESTING)
    gbnf.check('root ::= "a"{' + str(MAX_TIMES) + "}")
    for text in (
        "root ::= " + "(" * (MAX_NESTING + 1) + '"a"' + ")" * (MAX_NESTING + 1),
        'root ::= "a"{' + str(MAX_TIMES + 1) + "}",
        'root ::= "a"{2,1}',
        "root ::= " + '"a"? ' * 2000,
    ):
        with pytest.raises(GrammarError):
            gbnf.check(text)


def test_rules_that_hold_themselves() -> None:
    assert recursive_rules('root ::= "a" b\nb ::= c?\nc ::= "(" b ")" | d\nd ::= "d"') == ["b", "c"]
    assert recursive_rules('root ::= "a" b\nb ::= "b"*') == []
    assert recursive_rules('root ::= "a" root | ""') == ["root"]


def test_what_becomes_too_dear_in_use_is_an_error(llama: Model) -> None:
    grammar = NativeGrammar(llama, HOSTILE["twice as many ways each time"])
    [a] = llama.tokenize("a")
    with pytest.raises(GrammarError):
        for _ in range(64):
            grammar.allowed(np.arange(llama.vocab_size))
            grammar.accept(a)
