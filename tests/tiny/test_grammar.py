"""Grammars over the real llama.cpp: what they let pass, what does not compile, what must do no harm."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from children import in_child
from gguf_files import VOCAB, tiny_llama

from llamaspec.errors import GrammarError
from llamaspec.native.grammar import MAX_BYTES, MAX_NESTING, NativeGrammar, schema_to_grammar
from llamaspec.native.model import Model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model(tiny_llama(tmp_path_factory.mktemp("models") / "model.gguf")) as model:
        yield model


def written(model: Model, grammar: NativeGrammar, text: str) -> bool:
    """Whether the grammar lets a text pass, token by token."""
    for token in model.tokenize(text):
        if not grammar.allowed(np.array([token]))[0]:
            return False
        grammar.accept(token)
    return True


def test_a_grammar_lets_pass_what_it_describes(llama: Model) -> None:
    text = 'root ::= "the " ("hen" | "rat") "\\n"'
    assert written(llama, NativeGrammar(llama, text), "the rat\n")
    assert not written(llama, NativeGrammar(llama, text), "the cat\n")
    ended = NativeGrammar(llama, text)
    assert not ended.allowed(np.array([VOCAB.eos]))[0]
    assert written(llama, ended, "the hen\n")
    everything = np.arange(llama.vocab_size)
    assert everything[ended.allowed(everything)].tolist() == list(llama.eog_tokens)


def test_a_copy_goes_its_own_way(llama: Model) -> None:
    grammar = NativeGrammar(llama, 'root ::= "ab"')
    copy = grammar.copy()
    [a], [b] = (np.array(llama.tokenize(text)) for text in "ab")
    copy.accept(int(a))
    assert copy.allowed(np.array([b]))[0]
    assert grammar.allowed(np.array([a]))[0]
    assert not grammar.allowed(np.array([b]))[0]


def test_accepting_what_is_not_allowed_is_an_error_and_not_the_end(llama: Model) -> None:
    grammar = NativeGrammar(llama, 'root ::= "a"')
    with pytest.raises(GrammarError):
        grammar.accept(VOCAB.eos)
    assert written(llama, grammar, "a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        'rot ::= "a"',
        'root ::= "a',
        "root ::= undefined",
        'root ::= root "a" | "a"',
        'root ::= ("a"',
        "root ::= [a-",
        'root ::= "a"{2,1}',
        'root ::= "a"{1000000000}',
        'root ::= "a"{99999999999999999999}',
        'root ::= "\\xZZ"',
        "root ::= \0",
        'root ::= "\ud800"',
        "root ::= " + "(" * (MAX_NESTING + 1) + '"a"' + ")" * (MAX_NESTING + 1),
        'root ::= "' + "a" * MAX_BYTES + '"',
    ],
    ids=range(15),
)
def test_grammars_that_do_not_compile(llama: Model, text: str) -> None:
    with pytest.raises(GrammarError):
        NativeGrammar(llama, text)


HOSTILE = {
    "nested repetitions": 'root ::= ((("a"{0,1000}){0,1000}){0,1000})',
    "as deep as allowed": "root ::= " + "(" * MAX_NESTING + '"a"' + ")*" * MAX_NESTING,
    "empty alternatives": "root ::= (a | a | a)*\na ::= b*\nb ::= c*\nc ::= [a-z]?",
    "a long chain": "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1}\n" for n in range(3000)) + 'r3000 ::= "a"',
    "right recursion": 'root ::= "a" root | ""',
    "left recursion through another": 'root ::= a "x"\na ::= root | "y"',
    "open brackets in a literal": 'root ::= "' + "(" * 60 + '"',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_do_not_kill_the_process(tmp_path: Path, name: str) -> None:
    path = tiny_llama(tmp_path / "model.gguf")
    code = f"""
        import numpy as np
        from pathlib import Path
        from llamaspec.errors import GrammarError
        from llamaspec.native.grammar import NativeGrammar
        from llamaspec.native.model import Model
        model = Model(Path({str(path)!r}))
        try:
            grammar = NativeGrammar(model, {HOSTILE[name]!r})
            for _ in range(3):
                allowed = np.flatnonzero(grammar.allowed(np.arange(model.vocab_size)))
                if not allowed.size or model.is_eog(int(allowed[0])):
                    break
                grammar.accept(int(allowed[0]))
            print("ran")
        except GrammarError:
            print("refused")
    """
    child = in_child(code)
    assert child.stdout.strip() in ("ran", "refused"), (child.returncode, child.stderr[-400:])


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "nonsense",
        "[]",
        "3",
        '{"type": "no such type"}',
        '{"$ref": "https://example.org/schema.json"}',
        '{"$ref": "#/nowhere"}',
        '{"type": "string", "pattern": "^[a-"}',
        '{"type": "object", "properties": 7}',
        "[" * 100_000,
        '{"a":' * 5_000,
        '{"description": "' + "x" * MAX_BYTES + '"}',
    ],
    ids=range(12),
)
def test_schemas_that_make_no_grammar(llama: Model, schema: str) -> None:
    with pytest.raises(GrammarError):
        NativeGrammar(llama, schema_to_grammar(schema))


def test_a_schema_becomes_a_grammar(llama: Model) -> None:
    schema = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
    text = schema_to_grammar(schema)
    assert written(llama, NativeGrammar(llama, text), '{"n": 12}')
    assert not written(llama, NativeGrammar(llama, text), '{"n": "12"}')
