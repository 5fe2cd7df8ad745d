"""Models, contexts and grammars over the real llama.cpp, on files of a few hundred kilobytes."""

import math
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf_files import VOCAB, tiny_jamba, tiny_llama, tiny_mamba
from lfm2_file import tiny_lfm2

from llamaspec.decode.ports import Feed, Row
from llamaspec.decode.sampling import Sampler
from llamaspec.errors import ClosedError, ContextError, DecodeError, GrammarError, ModelFileError, UsageError
from llamaspec.native.context import Context, ContextOptions
from llamaspec.native.grammar import MAX_BYTES, MAX_NESTING, NativeGrammar, schema_to_grammar
from llamaspec.native.model import Model
from llamaspec.settings import SamplingSettings

ARCHITECTURES: dict[str, Callable[[Path], Path]] = {
    "llama": tiny_llama,
    "mamba": tiny_mamba,
    "jamba": tiny_jamba,
    "lfm2": tiny_lfm2,
}
SNAPSHOTS = {"lfm2"}  # the others can only go back to a checkpoint
TEXT = "the hen and the rat: 7 Äpfel\n"
OPTIONS = ContextOptions(context_size=128, sequences=2, batch_size=64, ubatch_size=64, max_rows=16)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    folder = tmp_path_factory.mktemp("models")
    opened = {name: Model(write(folder / f"{name}.gguf")) for name, write in ARCHITECTURES.items()}
    yield opened
    for model in opened.values():
        model.close()


@pytest.fixture
def llama(models: dict[str, Model]) -> Model:
    return models["llama"]


def context(model: Model, **changes: object) -> Context:
    return Context(model, ContextOptions(**{**vars_of(OPTIONS), **changes}))  # type: ignore[arg-type]


def vars_of(options: ContextOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def last_row(context: Context, tokens: Sequence[int], position: int = 0, sequence: int = 0) -> Row:
    [rows] = context.decode([Feed(sequence, tokens, position, rows=1)])
    return rows[-1].copy()


def assert_near(one: Row, other: Row) -> None:
    """Another batch width adds floats in another order: no more than that may differ."""
    np.testing.assert_allclose(one, other, atol=0.05)


def test_what_a_model_says_of_itself(models: dict[str, Model]) -> None:
    for model in models.values():
        assert model.vocab_size == len(VOCAB.texts)
        assert model.context_train == 512
        assert model.eos == VOCAB.eos
        assert VOCAB.eos in model.eog_tokens
        assert [token for token in range(model.vocab_size) if model.is_eog(token)] == list(model.eog_tokens)
        assert not model.has_encoder
    assert [models[name].keeps_all_positions for name in ARCHITECTURES] == [True, False, False, False]


@pytest.mark.parametrize("text", ["", "a", TEXT, "𝄞 the\u0301\0x", "\ud800 half", "the " * 300])
def test_tokens_and_back(llama: Model, text: str) -> None:
    tokens = llama.tokenize(text)
    written = b"".join(llama.piece(token) for token in tokens)
    assert written == text.encode("utf-8", "replace")


def test_control_tokens_have_names_but_no_text(llama: Model) -> None:
    assert llama.tokenize("<|im_end|>") == [VOCAB.eos]
    assert VOCAB.eos not in llama.tokenize("<|im_end|>", special=False)
    assert llama.piece(VOCAB.eos) == b""
    assert llama.special_text(VOCAB.eos) == "<|im_end|>"
    assert llama.special_text(None) == ""


@pytest.mark.parametrize("token", [-1, len(VOCAB.texts), 1 << 30])
def test_ids_outside_of_the_vocabulary(llama: Model, token: int) -> None:
    with pytest.raises(UsageError):
        llama.piece(token)
    with context(llama) as open_context, pytest.raises(DecodeError):
        open_context.decode([Feed(0, [1, token], 0, rows=1)])


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "none.gguf"
    file.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelFileError):
        Model(file)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_are_those_of_single_steps(models: dict[str, Model], name: str) -> None:
    tokens = models[name].tokenize(TEXT)
    with context(models[name]) as together, context(models[name]) as alone:
        [rows] = together.decode([Feed(0, tokens, 0, rows=5, draft=4)])
        for place, token in enumerate(tokens):
            row = last_row(alone, [token], place)
            if (at := place - (len(tokens) - 5)) >= 0:
                assert_near(rows[at], row)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sequences_do_not_mix(models: dict[str, Model], name: str) -> None:
    first, second = models[name].tokenize(TEXT), models[name].tokenize("another one")
    with context(models[name]) as both, context(models[name]) as alone:
        one, other = both.decode([Feed(0, first, 0, rows=1), Feed(1, second, 0, rows=2)])
        assert (one.shape, other.shape) == ((1, both.vocab_size), (2, both.vocab_size))
        one, other = one.copy(), other.copy()
        assert_near(one[-1], last_row(alone, first))
        assert alone.truncate(0, 0) == 0
        assert_near(other[-1], last_row(alone, second))
        # The next round in the other order, one sequence with more tokens than the other.
        second_rows, first_rows = both.decode(
            [Feed(1, [5, 6, 7], len(second), rows=3), Feed(0, [9], len(first), rows=1)]
        )
        second_last, first_last = second_rows[-1].copy(), first_rows[-1].copy()
        assert_near(second_last, last_row(alone, [5, 6, 7], len(second)))
        alone.truncate(0, 0)
        assert_near(first_last, last_row(alone, [*first, 9]))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("rollback", [0, 4], ids=["checkpoint", "snapshots"])
@pytest.mark.parametrize("kept", range(4))
def test_a_rejected_draft_leaves_no_trace(
    models: dict[str, Model], name: str, rollback: int, kept: int
) -> None:
    tokens = models[name].tokenize(TEXT)
    text, draft = tokens[:-1], [tokens[-1], 11, 12, 13, 14]
    with context(models[name], rollback=rollback) as tried, context(models[name]) as fresh:
        tried.decode([Feed(0, text, 0, rows=1)])
        for _ in range(3):  # again and again from the same place
            tried.decode([Feed(0, draft, len(text), rows=5, draft=4)])
            right = [*tokens, *draft[1 : 1 + kept]]
            held = tried.truncate(0, len(right))
            back_to_the_place = name == "llama" or (rollback and name in SNAPSHOTS)
            assert held == (len(right) if back_to_the_place else len(text))
            row = last_row(tried, [*right[held:], 20], held)
            fresh.truncate(0, 0)
            assert_near(row, last_row(fresh, [*right, 20]))
            again = tried.truncate(0, len(text))
            if again < len(text):
                tried.decode([Feed(0, text[again:], again, rows=1)])


@pytest.mark.parametrize("name", ["mamba", "jamba", "lfm2"])
@pytest.mark.parametrize("rollback", [0, 4], ids=["checkpoint", "snapshots"])
def test_draft_steps_of_one_token_are_taken_back_together(
    models: dict[str, Model], name: str, rollback: int
) -> None:
    """What a draft model does: it reads the text, then its own tokens one by one."""
    text = models[name].tokenize(TEXT)
    with context(models[name], rollback=rollback) as tried, context(models[name]) as fresh:
        held = 0
        for _ in range(3):
            tried.decode([Feed(0, text[held:], held, rows=1)])
            for number, token in enumerate((30, 31, 32)):
                tried.decode([Feed(0, [token], len(text) + number, rows=1, draft=1)])
            held = tried.truncate(0, len(text) + 1)
            assert held == len(text)
            text = [*text, 30, 17]
        row = last_row(tried, text[held:], held)
        assert_near(row, last_row(fresh, text))


def test_positions_beyond_the_context_are_refused(llama: Model) -> None:
    with context(llama, context_size=16, sequences=1) as small:
        last_row(small, [1] * 16)
        with pytest.raises(ContextError):
            small.decode([Feed(0, [1], 16, rows=1)])
        assert small.truncate(0, 15) == 15
        last_row(small, [2], 15)


@pytest.mark.parametrize(
    "feeds",
    [
        [],
        [Feed(0, [], 0)],
        [Feed(0, [1] * 65, 0)],
        [Feed(0, [1] * 20, 0, rows=17)],
        [Feed(7, [1], 0, rows=1)],
        [Feed(-1, [1], 0, rows=1)],
    ],
    ids=["none", "empty", "too long", "too many rows", "no such sequence", "a negative sequence"],
)
def test_batches_that_cannot_be_are_errors_and_leave_the_context_well(
    llama: Model, feeds: list[Feed]
) -> None:
    with context(llama) as survivor:
        with pytest.raises(DecodeError):
            survivor.decode(feeds)
        assert np.isfinite(last_row(survivor, [1, 2, 3])).all()


def test_use_after_close_is_an_error(tmp_path: Path) -> None:
    model = Model(tiny_llama(tmp_path / "model.gguf"))
    open_context = context(model)
    grammar = NativeGrammar(model, 'root ::= "a"')
    for closing in (grammar, open_context, model):
        closing.close()
        closing.close()
    uses: list[Callable[[], object]] = [
        lambda: open_context.decode([Feed(0, [1], 0, rows=1)]),
        lambda: open_context.truncate(0, 0),
        lambda: grammar.allowed(np.array([1])),
        grammar.copy,
        lambda: model.tokenize("a"),
        lambda: model.piece(1),
        lambda: context(model),
        lambda: NativeGrammar(model, 'root ::= "a"'),
    ]
    for use in uses:
        with pytest.raises(ClosedError):
            use()


def test_a_context_whose_model_was_closed_first_is_closed_too(tmp_path: Path) -> None:
    """In another process: getting this wrong reads freed memory."""
    path = tiny_llama(tmp_path / "model.gguf")
    code = f"""
        import numpy as np
        from pathlib import Path
        from llamaspec.decode.ports import Feed
        from llamaspec.errors import ClosedError
        from llamaspec.native.context import Context, ContextOptions
        from llamaspec.native.grammar import NativeGrammar
        from llamaspec.native.model import Model
        model = Model(Path({str(path)!r}))
        context = Context(model, ContextOptions(64))
        grammar = NativeGrammar(model, 'root ::= "a"')
        model.close()
        for use in (lambda: context.decode([Feed(0, [1], 0, 1)]), lambda: grammar.allowed(np.array([1]))):
            try:
                use()
            except ClosedError:
                print("closed")
    """
    child = in_child(code)
    assert child.stdout.split() == ["closed"] * 2, child.stderr


def in_child(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )


# Grammars


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


# llama.cpp's own samplers as a second opinion on ours


def llama_cpp_distribution(
    row: Row, options: SamplingSettings, history: Sequence[int]
) -> dict[int, float]:
    import ctypes

    from llama_cpp import llama_cpp as lib

    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    for sampler in (
        lib.llama_sampler_init_penalties(
            row.size,
            len(history) if options.repeat_last_n < 0 else options.repeat_last_n,
            options.repeat_penalty,
            options.frequency_penalty,
            options.presence_penalty,
        ),
        lib.llama_sampler_init_top_k(options.top_k),
        lib.llama_sampler_init_top_p(options.top_p, 1),
        lib.llama_sampler_init_min_p(options.min_p, 1),
        lib.llama_sampler_init_temp(options.temperature),
    ):
        lib.llama_sampler_chain_add(chain, sampler)
    for token in history:
        lib.llama_sampler_accept(chain, token)
    data = (lib.llama_token_data * row.size)(*((i, float(v), 0.0) for i, v in enumerate(row)))
    array = lib.llama_token_data_array(data=data, size=row.size, selected=-1, sorted=False)
    lib.llama_sampler_apply(chain, ctypes.byref(array))
    left = [(array.data[i].id, array.data[i].logit) for i in range(array.size)]
    lib.llama_sampler_free(chain)
    best = max(logit for _, logit in left)
    weights = {token: math.exp(logit - best) for token, logit in left if logit > -math.inf}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


@pytest.mark.parametrize("seed", range(60))
def test_samplers_agree_with_those_of_llama_cpp(seed: int) -> None:
    random = np.random.default_rng(seed)
    row = (random.standard_normal(random.integers(30, 1500)) * random.choice([0.5, 2, 6])).astype(np.float32)
    history = random.integers(0, min(40, row.size), random.integers(0, 90)).tolist()
    options = SamplingSettings(
        temperature=float(random.choice([0.3, 0.8, 1.0, 1.7])),
        top_k=int(random.choice([0, 5, 40, 3000])),
        top_p=float(random.choice([1.0, 0.95, 0.5])),
        min_p=float(random.choice([0.0, 0.05, 0.3])),
        repeat_penalty=float(random.choice([1.0, 1.1, 0.9])),
        repeat_last_n=int(random.choice([-1, 0, 8, 64])),
        presence_penalty=float(random.choice([0.0, 0.5])),
        frequency_penalty=float(random.choice([0.0, 0.2, -0.1])),
    )
    ours = Sampler(options, 0).distribution(row, history)
    theirs = llama_cpp_distribution(row, options, history)
    assert set(ours.ids.tolist()) == set(theirs)
    for token, p in zip(ours.ids.tolist(), ours.probs.tolist(), strict=True):
        assert p == pytest.approx(theirs[token], rel=1e-4)
