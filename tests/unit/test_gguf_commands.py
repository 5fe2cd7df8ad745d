"""`llamaspec check` and `llamaspec show` on tiny models."""

import json
from pathlib import Path

import pytest
from gguf_files import VOCAB, tiny_jamba, tiny_llama

from llamaspec.cli.check import check
from llamaspec.cli.show import show
from llamaspec.console.tables import human_bytes, human_count
from llamaspec.errors import PairMismatchError


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_llama(tmp_path_factory.mktemp("gguf") / "main.gguf"))


def test_check_says_what_was_compared(main: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = str(tiny_llama(tmp_path / "draft.gguf", vocab=VOCAB.longer_by(2)))
    check(main, draft)
    said = capsys.readouterr().out
    assert said.startswith("Compatible: draft.gguf can draft for main.gguf.")
    assert "draft model has 2 more" in said
    check(main, draft, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["compatible"] is True
    assert report["size_difference"] == -2


def test_check_raises_for_a_pair_that_differs(main: str, tmp_path: Path) -> None:
    draft = str(tiny_llama(tmp_path / "draft.gguf", vocab=VOCAB.differing_at(70, "other")))
    with pytest.raises(PairMismatchError):
        check(main, draft)


def test_show_prints_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tiny_jamba(tmp_path / "jamba.gguf"))
    show(path)
    said = capsys.readouterr().out
    assert "jamba, hybrid" in said
    assert "128 B per token" in said
    show(path, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["architecture"] == "jamba"
    assert facts["files"] == [path]
    assert facts["kv_bytes_per_token"] == 128


def test_numbers_for_people() -> None:
    assert human_bytes(512) == "512 B"
    assert human_bytes(1117320768) == "1.04 GiB"
    assert human_bytes(1 << 43) == "8 TiB"
    assert human_count(999) == "999"
    assert human_count(1777088000) == "1.78 B"
    assert human_count(134515008) == "135 M"
