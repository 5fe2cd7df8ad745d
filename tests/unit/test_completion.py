"""What the shell is told when the Tab key is pressed: the protocol for bash, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamaspec.cli import completion

PROGRAM = "import sys; sys.argv = ['llamaspec']; from llamaspec.cli import main; main()"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A place with a model file, a model in the cache, and a profile of one's own."""
    profiles = tmp_path / "config" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "mine.yaml").write_text("this is not: [a profile", encoding="utf-8")
    kept = tmp_path / "cache" / "models" / "0123456789abcdef"
    kept.mkdir(parents=True)
    (kept / "kept.gguf").write_bytes(b"GGUF")
    (tmp_path / "beside.gguf").write_bytes(b"GGUF")
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    return tmp_path


def completed(line: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`line` is what is typed; the cursor is at its end."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=home,
        env={
            **os.environ,
            "LLAMASPEC_CONFIG": str(home / "config"),
            "LLAMASPEC_CACHE": str(home / "cache"),
            "HF_HOME": str(home / "hub"),
            "_LLAMASPEC_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
            **environment,
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("llamaspec ru", ["run"]),
        ("llamaspec run -p mi", ["mine"]),
        ("llamaspec serve --profile smol", ["smollm2-135m"]),
        ("llamaspec profile show qwen3", ["qwen3-8b"]),
        ("llamaspec profile rm ", ["mine"]),
        ("llamaspec run --drafters ngram,c", ["ngram,corpus", "ngram,cascade"]),
        ("llamaspec run --device c", ["cpu", "cuda"]),
        ("llamaspec run -ctk q8", ["q8_0"]),
        ("llamaspec run --spec f", ["fixed"]),
        ("llamaspec doctor -v py", ["python"]),
        ("llamaspec bench --workload st", ["story"]),
        ("llamaspec bench --settings auto,pl", ["auto,plain"]),
        ("llamaspec run -m b", ["beside.gguf"]),
        ("llamaspec check beside.gguf b", ["beside.gguf"]),
        ("llamaspec rm k", ["kept.gguf"]),
    ],
)
def test_names_are_completed(line: str, offered: list[str], home: Path) -> None:
    done = completed(line, home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == offered


def test_models_are_offered_by_path_and_from_the_cache(home: Path) -> None:
    offered = completed("llamaspec run -m ", home).stdout.splitlines()
    assert offered == ["beside.gguf", str(home / "cache" / "models" / "0123456789abcdef" / "kept.gguf")]
    inside = completed(f"llamaspec run -m {(home / 'be').as_posix()}", home).stdout.splitlines()
    assert [Path(path) for path in inside] == [home / "beside.gguf"]


def test_zsh_and_fish_are_told_what_a_name_is(home: Path) -> None:
    done = completed("llamaspec doctor py", home, _LLAMASPEC_COMPLETE="complete_fish", **FISH)
    assert done.stdout.split() == ["python", "Python"]
    done = completed(
        "", home, _LLAMASPEC_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="llamaspec run -p mine"
    )
    assert '"mine":"user"' in done.stdout


FISH = {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TYPER_COMPLETE_ARGS": "llamaspec doctor py"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_a_script(shell: str, home: Path) -> None:
    done = completed("", home, _LLAMASPEC_COMPLETE=f"source_{shell}")
    assert done.returncode == 0
    assert "_LLAMASPEC_COMPLETE" in done.stdout


def test_what_goes_wrong_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> list[object]:
        raise RuntimeError("the cache is on fire")

    monkeypatch.setattr("llamaspec.hub.inventory.list_models", fails)
    monkeypatch.setattr("llamaspec.profiles.list_entries", fails)
    for offer in (completion.models, completion.kept_models, completion.profiles):
        assert offer("") == []
    assert completion.profiles_or_models("") == []


def test_it_is_installed_for_the_user_and_no_test_has_a_real_home(home: Path) -> None:
    assert Path.home().name.startswith("llamaspec-home-")  # tests/conftest.py
    here = {"HOME": str(home), "USERPROFILE": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("'llamaspec'", "'llamaspec', '--install-completion', 'bash'")],
        env={**os.environ, **here},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    installed = (home / ".bash_completions" / "llamaspec.sh").read_text(encoding="utf-8")
    assert "_LLAMASPEC_COMPLETE" in installed
