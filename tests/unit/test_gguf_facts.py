"""Facts of tiny models, and which pairs can speculate."""

from dataclasses import replace
from pathlib import Path

import pytest
from gguf_files import VOCAB, tiny_jamba, tiny_llama, tiny_mamba

from llamaspec.errors import PairMismatchError, UsageError
from llamaspec.gguf.facts import describe
from llamaspec.gguf.header import Header
from llamaspec.gguf.pair import check_pair
from llamaspec.gguf.shards import read_model
from llamaspec.gguf.vocab import read_vocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


@pytest.fixture(scope="module")
def main(folder: Path) -> Header:
    return read_model(tiny_llama(folder / "main.gguf", layers=3))


def test_facts_of_a_transformer(main: Header) -> None:
    facts = describe(main)
    assert (facts.architecture, facts.licence, facts.quantisation) == ("llama", "apache-2.0", "F16")
    assert (facts.layers, facts.context_train, facts.embedding) == (3, 512, 64)
    assert (facts.heads, facts.kv_heads, facts.key_length, facts.value_length) == (4, 2, 16, 16)
    assert facts.vocab_size == len(VOCAB.texts)
    assert (facts.recurrent, facts.hybrid, facts.window) == (False, False, 0)
    assert facts.chat_template is not None
    ends = 2 * len(VOCAB.texts) * 64 * 2 + 64 * 4
    assert facts.other_bytes == ends
    layer = (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64) * 2 + 2 * 64 * 4
    assert facts.layer_bytes == (layer,) * 3
    assert facts.parameters == sum(tensor.elements for tensor in main.tensors)
    assert facts.file_bytes == main.path.stat().st_size


def test_cache_bytes_follow_the_cache_types(main: Header) -> None:
    facts = describe(main)
    assert facts.kv_bytes_per_token() == (2 * 32 * 2,) * 3
    assert facts.kv_bytes_per_token("q8_0", "q4_0") == (34 + 18,) * 3
    with pytest.raises(UsageError):
        facts.kv_bytes_per_token("q9")


def test_facts_of_recurrent_and_hybrid_models(folder: Path) -> None:
    mamba = describe(read_model(tiny_mamba(folder / "mamba.gguf")))
    assert (mamba.recurrent, mamba.hybrid) == (True, False)
    assert mamba.kv_bytes_per_token() == (0, 0)
    jamba = describe(read_model(tiny_jamba(folder / "jamba.gguf")))
    assert (jamba.recurrent, jamba.hybrid) == (False, True)
    assert jamba.attention_layers == (False, True)
    assert jamba.kv_bytes_per_token() == (0, 128)


def test_quantisation_without_the_files_word_is_what_holds_most(main: Header) -> None:
    values = {key: value for key, value in main.values.items() if key != "general.file_type"}
    assert describe(replace(main, values=values)).quantisation == "F16"


def test_a_pair_with_one_vocabulary_is_compatible(folder: Path, main: Header) -> None:
    report = check_pair(main, read_model(tiny_llama(folder / "draft.gguf", layers=1, embd=32)))
    size = len(VOCAB.texts)
    assert (report.main_size, report.draft_size, report.size_difference) == (size, size, 0)
    assert report.common_ids == size - 5


def test_the_first_token_that_differs_is_named(folder: Path, main: Header) -> None:
    other = VOCAB.differing_at(70, "ä\tß").differing_at(99, "later")
    draft = read_model(tiny_llama(folder / "other.gguf", vocab=other))
    with pytest.raises(
        PairMismatchError, match=r"^Token 70 is 'F' in the main model and 'ä\\tß' in the draft"
    ):
        check_pair(main, draft)


def test_the_first_ids_may_differ(folder: Path, main: Header) -> None:
    draft = read_model(tiny_llama(folder / "low.gguf", vocab=VOCAB.differing_at(4, "renamed")))
    assert check_pair(main, draft).size_difference == 0


@pytest.mark.parametrize("more", [128, 129])
def test_sizes_may_differ_by_128(folder: Path, main: Header, more: int) -> None:
    draft = read_model(tiny_llama(folder / f"longer{more}.gguf", vocab=VOCAB.longer_by(more)))
    if more == 128:
        assert check_pair(main, draft).size_difference == -128
        assert check_pair(draft, main).size_difference == 128
    else:
        with pytest.raises(PairMismatchError, match="more than 128 apart"):
            check_pair(main, draft)


def test_use_of_bos_and_eos_must_agree(main: Header) -> None:
    adds = replace(main, values={**main.values, "tokenizer.ggml.add_bos_token": True})
    other = replace(adds, values={**adds.values, "tokenizer.ggml.bos_token_id": 7})
    with pytest.raises(PairMismatchError, match=r"token 290 at the beginning .* no token"):
        check_pair(adds, main)
    with pytest.raises(PairMismatchError, match=r"token 290 at the beginning .* token 7"):
        check_pair(adds, other)
    unused = replace(main, values={**main.values, "tokenizer.ggml.bos_token_id": 7})
    assert check_pair(main, unused).size_difference == 0


def test_vocabulary_defaults_are_llama_cpps(main: Header) -> None:
    bare = {
        key: value
        for key, value in main.values.items()
        if not key.endswith(("_token_id", "add_bos_token", "add_eos_token"))
    }
    bpe = read_vocabulary(replace(main, values=bare))
    assert (bpe.type, bpe.bos, bpe.eos, bpe.add_bos, bpe.add_eos) == ("BPE", 11, 11, False, False)
    llama3 = read_vocabulary(replace(main, values={**bare, "tokenizer.ggml.pre": "llama-bpe"}))
    assert llama3.add_bos
    spm = read_vocabulary(replace(main, values={**bare, "tokenizer.ggml.model": "llama"}))
    assert (spm.type, spm.bos, spm.eos, spm.add_bos, spm.add_eos) == ("SPM", 1, 2, True, False)
