"""Models, contexts and grammars over the real llama.cpp, on files of a few hundred kilobytes."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from children import in_child
from gguf_files import VOCAB, tiny_jamba, tiny_llama, tiny_mamba
from lfm2_file import tiny_lfm2

from llamaspec.decode.ports import Feed, Row
from llamaspec.errors import ClosedError, ContextError, DecodeError, ModelFileError, UsageError
from llamaspec.native.context import Context, ContextOptions
from llamaspec.native.grammar import NativeGrammar
from llamaspec.native.model import Model

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
        assert model.eos == VOCAB.eos
        assert VOCAB.eos in model.eog_tokens
        assert [token for token in range(model.vocab_size) if model.is_eog(token)] == list(model.eog_tokens)
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
