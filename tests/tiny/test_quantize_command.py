"""`llamaspec quantize` on generated files, with the real llama.cpp."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from gguf_files import tiny_llama
from typer.testing import CliRunner

from llamaspec.cli import app
from llamaspec.errors import FileMissingError, ModelFileError, UsageError
from llamaspec.gguf.facts import describe
from llamaspec.gguf.shards import read_model
from llamaspec.native.model import Model
from llamaspec.native.quantize import TYPES, quantize

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, away from the models and the caches."""
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return tiny_llama(folder / "tiny-f16.gguf")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def failure(*arguments: str | Path) -> Any:
    return RUNNER.invoke(app, ["quantize", *map(str, arguments)]).exception


def test_beside_the_model_with_the_type_in_its_name(model: Path) -> None:
    done = RUNNER.invoke(app, ["quantize", str(model), "q8_0"])
    assert done.exit_code == 0, done.output
    target = model.with_name("tiny.Q8_0.gguf")
    assert f"Wrote {target}" in done.stdout
    assert names(model.parent) == {"tiny-f16.gguf", "tiny.Q8_0.gguf"}
    facts, before = describe(read_model(target)), describe(read_model(model))
    assert facts.quantisation == "Q8_0"
    assert facts.file_bytes < before.file_bytes
    assert facts.parameters == before.parameters
    with Model(target) as loaded:
        assert loaded.tokenize("the hen")
    assert "quantised already" not in done.stderr


def test_json_tells_sizes_and_that_something_is_lost(model: Path, here: Path) -> None:
    first, second = here / "a.gguf", here / "b.gguf"
    assert RUNNER.invoke(app, ["quantize", str(model), "Q8_0", "-o", str(first)]).exit_code == 0
    done = RUNNER.invoke(app, ["quantize", str(first), "Q4_0", "-o", str(second), "-t", "1", "--json"])
    report = json.loads(done.stdout)
    assert report == {
        "source": str(first),
        "target": str(second),
        "source_type": "Q8_0",
        "type": "Q4_0",
        "source_bytes": first.stat().st_size,
        "bytes": second.stat().st_size,
        "requantised": True,
    }
    assert "quantised already (Q8_0)" in done.stderr


def test_a_model_in_a_cache_is_written_here(model: Path, here: Path, tmp_path: Path) -> None:
    for cache in (tmp_path / "cache" / "models" / "ab", tmp_path / "hf" / "models--a--b" / "snapshots" / "c"):
        cache.mkdir(parents=True)
        cached = model.rename(cache / model.name)
        assert RUNNER.invoke(app, ["quantize", str(cached), "Q8_0", "--force"]).exit_code == 0
        assert names(here) == {"tiny.Q8_0.gguf"}
        assert names(cache) == {model.name}
        model = cached


def test_a_folder_takes_the_name_as_it_would_be(model: Path, here: Path) -> None:
    assert RUNNER.invoke(app, ["quantize", str(model), "Q8_0", "-o", str(here)]).exit_code == 0
    assert names(here) == {"tiny.Q8_0.gguf"}


def test_what_is_there_is_replaced_only_when_asked(model: Path) -> None:
    target = model.with_name("mine.gguf")
    target.write_bytes(b"mine")
    refused = failure(model, "Q8_0", "-o", target)
    assert isinstance(refused, UsageError)
    assert "--force" in refused.hint
    assert target.read_bytes() == b"mine"
    assert RUNNER.invoke(app, ["quantize", str(model), "Q8_0", "-o", str(target), "--force"]).exit_code == 0
    assert describe(read_model(target)).quantisation == "Q8_0"


def test_the_model_itself_is_never_replaced(model: Path) -> None:
    before = model.read_bytes()
    for same in (model, model.parent / ".." / model.parent.name / model.name):
        assert isinstance(failure(model, "Q8_0", "-o", same, "--force"), UsageError)
    model.with_name("link.gguf").hardlink_to(model)
    assert isinstance(failure(model, "Q8_0", "-o", model.with_name("link.gguf"), "--force"), UsageError)
    assert model.read_bytes() == before


def test_unknown_types_are_refused_with_the_usual_ones_first(model: Path) -> None:
    refused = failure(model, "Q4")
    assert isinstance(refused, UsageError)
    assert refused.hint.startswith("The usual ones: Q4_0, Q4_K_M,")
    assert all(name in refused.hint for name in TYPES)
    assert names(model.parent) == {model.name}


def test_other_refusals(model: Path, here: Path) -> None:
    assert isinstance(failure(here / "none.gguf", "Q4_0"), FileMissingError)
    assert isinstance(failure(model, "Q4_0", "-t", "0"), UsageError)
    (here / "file").write_bytes(b"")
    assert isinstance(failure(model, "Q4_0", "-o", here / "file" / "x.gguf"), ModelFileError)
    assert names(here) == {"file"}


def test_a_type_that_llama_cpp_refuses_leaves_its_reason_and_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    model = tiny_llama(folder / "wide.gguf", embd=256)
    refused = failure(model, "IQ1_S")
    assert isinstance(refused, ModelFileError)
    assert "imatrix" in refused.message
    assert names(folder) == {model.name}


@pytest.mark.parametrize("calls", [1, 2])
def test_breaking_off_leaves_no_file_and_no_process(model: Path, calls: int) -> None:
    told = 0

    def stop(count: int) -> None:
        nonlocal told
        told += 1
        if told == calls:
            raise KeyboardInterrupt

    before = psutil.Process().children()
    with pytest.raises(KeyboardInterrupt):
        quantize(model, model.with_name("out.gguf"), "Q4_0", on_bytes=stop)
    assert names(model.parent) == {model.name}
    assert set(psutil.Process().children()) <= set(before)


def interrupted(model: Path) -> tuple[int, bytes]:
    """Exit code and standard error of a command that gets Ctrl-C while it writes, or right after."""
    command = subprocess.Popen(
        [sys.executable, "-m", "llamaspec", "quantize", str(model), "Q4_0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A job in the background of a script ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    while not list(model.parent.glob("*.partial")) and command.poll() is None:
        time.sleep(0.002)
    if command.poll() is None:
        os.killpg(command.pid, signal.SIGINT)  # the whole group, as a terminal does
    _, errors = command.communicate(timeout=60)
    return command.returncode, errors


@pytest.mark.skipif(os.name == "nt", reason="a child process can't be sent Ctrl-C alone")
def test_ctrl_c_ends_with_130_and_leaves_no_file(model: Path) -> None:
    for _ in range(10):  # a small model may be done before the signal comes
        code, errors = interrupted(model)
        if code != 0:
            break
        for written in names(model.parent) - {model.name}:
            model.with_name(written).unlink()
    assert code == 130, errors
    assert b"Traceback" not in errors
    assert names(model.parent) == {model.name}
