"""Headers that are well formed and whose contents are not: changed by hand from a sound tiny model."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from gguf_files import tiny_jamba, tiny_llama, tiny_mamba

from llamaspec.errors import CorruptGGUFError, UnsupportedModelError
from llamaspec.gguf.checks import check_model
from llamaspec.gguf.header import Array, Header, Value
from llamaspec.gguf.shards import read_model
from llamaspec.gguf.types import TYPES_BY_NAME


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Header:
    return read_model(tiny_llama(tmp_path_factory.mktemp("gguf") / "llama.gguf"))


@pytest.fixture(scope="module")
def jamba(tmp_path_factory: pytest.TempPathFactory) -> Header:
    return read_model(tiny_jamba(tmp_path_factory.mktemp("gguf") / "jamba.gguf"))


def changed(header: Header, **values: Value | None) -> Header:
    """`header` with keys set (dots as double underscores), or removed where None."""
    merged = {**header.values, **{name.replace("__", "."): value for name, value in values.items()}}
    return replace(header, values={name: value for name, value in merged.items() if value is not None})


def stored_as(header: Header, name: str, kind: str) -> Header:
    tensors = (replace(t, type=TYPES_BY_NAME[kind]) if t.name == name else t for t in header.tensors)
    return replace(header, tensors=tuple(tensors))


def int32s(*numbers: int) -> Array:
    return Array(5, len(numbers), b"".join(number.to_bytes(4, "little", signed=True) for number in numbers))


def test_sound_models_pass(llama: Header, jamba: Header, tmp_path: Path) -> None:
    for header in (llama, jamba, read_model(tiny_mamba(tmp_path / "mamba.gguf"))):
        check_model(header)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("llama__block_count", 0, "block_count"),
        ("llama__block_count", 513, "block_count"),
        ("llama__context_length", 0, "context_length"),
        ("llama__embedding_length", 0, "embedding_length"),
        ("llama__embedding_length", None, "embedding_length"),
        ("llama__embedding_length", 65, "token embeddings"),
        ("llama__attention__head_count", 0, "no attention heads"),
        ("llama__attention__head_count", 2**31 + 4, "head_count"),
        ("llama__attention__head_count", 5, "divide evenly"),
        ("llama__attention__head_count", int32s(4, 4, 4), "each of its 2 layers"),
        ("llama__attention__head_count", int32s(4, -4), "out of bounds"),
        ("llama__attention__head_count_kv", 3, "divide evenly"),
        ("llama__attention__head_count_kv", 2 + 2**28, "head_count_kv"),
        ("llama__attention__head_count_kv", 1, "attn_k.weight"),
        ("llama__attention__key_length", 32, "not the same size"),
        ("llama__attention__layer_norm_rms_epsilon", -1e-5, "epsilon"),
        ("llama__attention__layer_norm_rms_epsilon", math.nan, "epsilon"),
        ("llama__rope__dimension_count", 18, "rotates 18"),
        ("llama__rope__dimension_count", 7, "rotates 7"),
        ("llama__rope__freq_base", 0.0, "frequency base"),
        ("llama__rope__scaling__type", "dynamic", "'dynamic'"),
        ("llama__rope__dimension_sections", int32s(0, 0, 0, 0), "sections"),
        ("llama__nextn_predict_layers", 2, "nextn_predict_layers"),
        ("llama__expert_count", 8, "experts"),
        ("llama__expert_used_count", 2, "experts"),
        ("llama__expert_group_count", 3, "experts"),
        ("llama__vocab_size", 2**32 - 1, "absurd"),
        ("tokenizer__ggml__tokens", None, "no tokens"),
        ("tokenizer__ggml__tokens", int32s(1), "list of texts"),
        ("tokenizer__ggml__token_type", int32s(1, 1), "token_type"),
        ("tokenizer__ggml__eos_token_id", 293, "outside its 293 tokens"),
        ("tokenizer__ggml__eot_token_id", 2**31, "outside its 293 tokens"),
    ],
)
def test_impossible_values_are_refused(llama: Header, key: str, value: Value | None, said: str) -> None:
    with pytest.raises(CorruptGGUFError) as caught:
        check_model(changed(llama, **{key: value}))
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"general__architecture": "bert"}, "'bert'"),
        ({"general__architecture": "nomic-bert-moe"}, "'nomic-bert-moe'"),
        ({"general__architecture": "clip"}, "'clip'"),
        ({"general__type": "adapter"}, "'adapter'"),
        ({"general__type": "mmproj"}, "'mmproj'"),
        ({"llama__attention__causal": False}, "both directions"),
        ({"llama__pooling_type": 1}, "pools"),
        ({"llama__block_count": None}, "no language model"),
        ({"tokenizer__ggml__model": None}, "no vocabulary"),
        ({"tokenizer__ggml__model": "no_vocab"}, "no vocabulary"),
        ({"tokenizer__ggml__model": "bert"}, "'bert'"),
    ],
)
def test_other_kinds_of_models_are_told_apart(llama: Header, values: dict[str, Value], said: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        check_model(changed(llama, **values))
    assert said in caught.value.message


def test_a_file_without_weights_is_no_model(llama: Header) -> None:
    with pytest.raises(UnsupportedModelError, match="no weights"):
        check_model(replace(llama, tensors=()))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("output_norm.weight", "F16"),
        ("blk.0.attn_norm.weight", "I32"),
        ("token_embd.weight", "I32"),
        ("blk.1.ffn_up.weight", "Q8_1"),
        ("output.weight", "F64"),
    ],
)
def test_formats_without_kernels_are_refused(llama: Header, name: str, kind: str) -> None:
    with pytest.raises(CorruptGGUFError, match=kind):
        check_model(stored_as(llama, name, kind))


def test_recurrent_layers_have_bounds(jamba: Header) -> None:
    for key, value in (("conv_kernel", 1), ("inner_size", 64), ("state_size", 1 << 20)):
        with pytest.raises(CorruptGGUFError):
            check_model(changed(jamba, **{f"jamba__ssm__{key}": value}))
    with pytest.raises(CorruptGGUFError):
        check_model(stored_as(jamba, "blk.0.ssm_conv1d.weight", "F16"))


def _tokens(texts: list[bytes]) -> Array:
    raw = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    return Array(8, len(texts), raw)


@pytest.mark.parametrize("again", [b"a", b"a\0b"])
def test_a_token_twice_is_refused(llama: Header, again: bytes) -> None:
    texts = llama.strings("tokenizer.ggml.tokens") or []
    assert b"a" in texts
    texts[0] = again
    with pytest.raises(CorruptGGUFError, match="'a' more than once"):
        check_model(changed(llama, tokenizer__ggml__tokens=_tokens(texts)))


def test_empty_tokens_are_told_apart(llama: Header) -> None:
    texts = llama.strings("tokenizer.ggml.tokens") or []
    texts[3] = texts[4] = b""
    check_model(changed(llama, tokenizer__ggml__tokens=_tokens(texts)))


def test_a_missing_byte_token_is_refused_where_text_falls_back_to_bytes(llama: Header) -> None:
    texts = [b"<0x%02X>" % byte for byte in range(256)] + [b"t%d" % token for token in range(37)]
    spm = changed(llama, tokenizer__ggml__model="llama", tokenizer__ggml__tokens=_tokens(texts))
    check_model(spm)
    texts[0x41] = b"A"
    check_model(changed(spm, tokenizer__ggml__tokens=_tokens(texts)))
    texts[0x41] = b"AA"
    with pytest.raises(CorruptGGUFError, match="0x41"):
        check_model(changed(spm, tokenizer__ggml__tokens=_tokens(texts)))
