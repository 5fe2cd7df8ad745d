"""`llamaspec check` and `llamaspec show` on tiny models."""

import json
import os
from pathlib import Path

import pytest
from gguf_files import VOCAB, tiny_jamba, tiny_llama
from typer.testing import CliRunner

from llamaspec.cli import app
from llamaspec.cli.check import _verdict
from llamaspec.cli.shell import command
from llamaspec.cli.show import show
from llamaspec.console.tables import human_bytes, human_count
from llamaspec.control.breakeven import break_even
from llamaspec.errors import PairMismatchError, UsageError

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_llama(tmp_path_factory.mktemp("gguf") / "main.gguf"))


def test_check_says_what_was_compared(main: str, tmp_path: Path) -> None:
    draft = str(tiny_llama(tmp_path / "draft.gguf", vocab=VOCAB.longer_by(2)))
    said = RUNNER.invoke(app, ["check", main, draft])
    assert said.exit_code == 0
    assert said.output.startswith("Compatible: draft.gguf can draft for main.gguf.")
    assert "draft model has 2 more" in said.output
    report = json.loads(RUNNER.invoke(app, ["check", main, draft, "--json"]).output)
    assert report["compatible"] is True
    assert report["size_difference"] == -2
    assert "time" not in report


def test_check_raises_for_a_pair_that_differs(main: str, tmp_path: Path) -> None:
    draft = str(tiny_llama(tmp_path / "draft.gguf", vocab=VOCAB.differing_at(70, "other")))
    assert isinstance(RUNNER.invoke(app, ["check", main, draft]).exception, PairMismatchError)


def test_what_matters_for_measuring_is_refused_without_it(main: str) -> None:
    assert isinstance(RUNNER.invoke(app, ["check", main, main, "-t", "2"]).exception, UsageError)
    from_environment = RUNNER.invoke(app, ["check", main, main], env={"LLAMASPEC_THREADS": "2"})
    assert from_environment.exit_code == 0, "the environment speaks to all commands"
    refused = RUNNER.invoke(app, ["check", main, main, "--time", "-t", "0"]).exception
    assert isinstance(refused, UsageError)
    assert refused.message.startswith("threads: ")


def test_verdicts_for_people() -> None:
    assert "pays from 50 % of its tokens accepted (drafts of 1)" in _verdict(break_even([2.0, 2.0], 1.0))
    assert "never pays here" in _verdict(break_even([1.0, 1.5], 0.6))


@pytest.mark.skipif(os.name == "nt", reason="another shell quotes in another way")
def test_a_command_can_be_pasted() -> None:
    assert command("quantize", "my models/x.gguf", "Q4_0") == "llamaspec quantize 'my models/x.gguf' Q4_0"


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
    assert human_bytes(1020 << 20) == "1020 MiB"
    assert human_bytes(1 << 43) == "8 TiB"
    assert human_count(999) == "999"
    assert human_count(1777088000) == "1.78 B"
    assert human_count(134515008) == "135 M"
