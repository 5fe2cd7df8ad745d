import json
import os
from pathlib import Path

import pytest

from llamaspec.cli.ls import ls
from llamaspec.cli.pull import _names_profile
from llamaspec.cli.rm import rm
from llamaspec.console.progress import DownloadProgress
from llamaspec.errors import FileMissingError
from llamaspec.hub.cache import is_file_with, model_path, partial_folder, remembered_sha256
from llamaspec.hub.inventory import find_models, list_models, remove
from llamaspec.hub.models import NoProgress

SHA = "ab" * 32


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path


def store(name: str, content: bytes = b"GGUF", sha256: str = SHA) -> Path:
    path = model_path(sha256, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_no_caches_no_models() -> None:
    assert list_models() == []


def test_complete_and_unfinished_models_are_listed() -> None:
    store("a-Q4_0.gguf")
    partial = partial_folder(model_path("cd" * 32, "b-Q8_0.gguf"))
    partial.mkdir(parents=True)
    (partial / "part.whl").write_bytes(b"12345")
    assert [(model.name, model.size, model.quantisation, model.complete) for model in list_models()] == [
        ("a-Q4_0.gguf", 4, "Q4_0", True),
        ("b-Q8_0.gguf", 5, "Q8_0", False),
    ]


def test_removing_takes_the_model_and_nothing_else(caches: Path) -> None:
    path, other = store("a.gguf"), store("b.gguf", sha256="cd" * 32)
    bystander = caches / "cache" / "models" / "bystander"
    bystander.mkdir()
    remove(*find_models(["a.gguf"]))
    assert not path.parent.exists()
    assert other.exists() and bystander.exists()


def test_models_of_the_same_name_are_told_apart() -> None:
    first, second = store("a.gguf"), store("a.gguf", sha256="cd" * 32)
    names = [model.name for model in list_models()]
    assert names == [f"{SHA[:16]}/a.gguf", f"{'cd' * 8}/a.gguf"]
    remove(*find_models([names[0]]))
    assert not first.exists() and second.exists()


@pytest.mark.parametrize("name", ["", "..", "../a.gguf", "models", "*.gguf"])
def test_what_is_not_a_model_is_not_found(name: str) -> None:
    store("a.gguf")
    with pytest.raises(FileMissingError):
        find_models([name])


def test_a_hash_is_remembered_until_the_file_changes() -> None:
    path = store("a.gguf", b"one")
    assert not is_file_with(path, SHA, NoProgress())
    known = remembered_sha256(path)
    assert known is not None and is_file_with(path, known, NoProgress())
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 0))
    assert remembered_sha256(path) is None
    assert not is_file_with(path, known, NoProgress())


def test_a_cache_that_cannot_be_written_costs_only_the_memory(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store("a.gguf", b"one")
    (caches / "file").touch()
    monkeypatch.setenv("LLAMASPEC_CACHE", str(caches / "file"))
    assert not is_file_with(path, SHA, NoProgress())


def test_ls_prints_json_with_the_profiles_that_use_a_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store("a-Q4_0.gguf")
    ls(as_json=True)
    [entry] = json.loads(capsys.readouterr().out)
    assert entry == {
        "name": "a-Q4_0.gguf",
        "size": 4,
        "quantisation": "Q4_0",
        "origin": "package index",
        "sha256": None,
        "complete": True,
        "profiles": [],
        "paths": [str(path)],
    }
    ls()
    assert "a-Q4_0.gguf" in capsys.readouterr().out


def test_rm_says_what_goes(capsys: pytest.CaptureFixture[str]) -> None:
    path = store("a.gguf")
    rm(["a.gguf"], yes=True)
    assert not path.exists()
    assert "a.gguf" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("qwen2.5-coder-1.5b", True),
        ("my.yaml", True),
        ("owner/repo/x.yaml@main", True),
        ("https://example.org/x", True),
        ("model.gguf", False),
        ("owner/repo:Q4_0", False),
        ("owner/repo/x.gguf@main", False),
        ("C:\\x", False),
    ],
)
def test_profiles_and_references_are_told_apart(name: str, profile: bool) -> None:
    assert _names_profile(name) is profile


def test_progress_elsewhere_than_on_a_terminal_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with DownloadProgress() as progress:
        progress.start("Fetching a.gguf", 2_500_000_000)
        progress.advance(10)
        progress.finish(True)
        progress.start("Fetching [b].gguf", None)
        progress.finish(False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Fetching a.gguf (2.50 GB)"
    assert lines[1].startswith("Fetching a.gguf: done after")
    assert lines[2] == "Fetching [b].gguf"
    assert lines[3].startswith("Fetching [b].gguf: failed after")


def test_progress_on_a_terminal_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with DownloadProgress() as progress:
        progress.start("Fetching a.gguf", 2_000_000)
        progress.advance(2_000_000)
        progress.finish(True)
        progress.start("Fetching b.gguf", None)
        progress.advance(1_000_000)
        progress.finish(True)
    captured = capsys.readouterr()
    assert "2.0/2.0 MB" in captured.err and "1.0/1.0 MB" in captured.err
    assert captured.out == ""
