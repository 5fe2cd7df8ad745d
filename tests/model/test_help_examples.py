"""Every example of `--help`, run by a shell as it is printed; those of `tune` without an end are interrupted.

It runs in a folder with the files that it names. Models are SmolLM2's, also those of the default profile: a
profile of the user hides the shipped one. So the program does all that an example asks of it, on models that
need no minutes. Examples that need the hub run where nothing answers, and say so.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from command_lines import commands, examples

from llamaspec.errors import NetworkError
from llamaspec.profiles import dump, find_profile

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(sys.platform == "win32", reason="the examples are written for a POSIX shell"),
]

EXAMPLES = {line: name for name, command in commands().items() for line in examples(command)}

NEED_THE_HUB = {
    line for line in EXAMPLES if re.search(r"https://|owner/repo|(Qwen|bartowski)/\S+-GGUF", line)
}
LEFT_OUT = {line: "listens to the whole network" for line in EXAMPLES if "--host 0.0.0.0" in line}
SERVERS = {line for line, name in EXAMPLES.items() if name == "llamaspec serve"} - LEFT_OUT.keys()
TAKE_MINUTES = {
    line for line, name in EXAMPLES.items() if name == "llamaspec tune" and "--minutes" not in line
}
"""Ended by Ctrl-C once they measure."""
ANSWERED = {
    "llamaspec rm SmolLM2-135M-Instruct.Q4_1.gguf": "y\n",
    "llamaspec profile rm mine": "y\n",
}
"""Ask at a terminal, and are answered there."""
PIPED = {line: "Name a river.\n" for line in EXAMPLES if line.startswith("llamaspec chat")}
BEFORE = {
    "llamaspec chat -c": "echo Hello | llamaspec chat",
    "llamaspec bench --compare before.json after.json": "llamaspec bench -p mine -w code -n 8 "
    "--settings plain --json before.json && cp before.json after.json",
}
DIFFERENT = {line for line, name in EXAMPLES.items() if name == "llamaspec profile diff"}
PORT = 8080
PATIENCE = 300.0  # seconds for what must happen: a test that fails, not one that is slow

_WORKLOAD = """\
prompts:
  - {name: one, kind: code, prompt: Write hello world in Python., n_predict: 24}
  - {name: two, kind: chat, prompt: Name a river., n_predict: 24}
"""


class Place:
    """A folder for one example, with `llamaspec` in the shell's path."""

    def __init__(self, folder: Path, model: Path, cache: Path, line: str) -> None:
        self.folder = folder / "here"
        self.folder.mkdir()
        self._model = model
        self._environment = _environment(folder, cache, offline=line in NEED_THE_HUB)
        self._keep_profiles(folder / "config" / "profiles")
        words = line.split()
        for before, word in zip(["", *words], words, strict=False):
            if before not in ("-o", ">", "--json", "--html", "--bundle"):
                self._make(word, before)

    def shell(self, line: str, stdin: int | None = None) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.PIPE if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def _keep_profiles(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        shown = "sampling: {n_predict: 32, temperature: 0.0}"
        (folder / "qwen2.5-coder-1.5b.yaml").write_text(
            f"schema: 1\nname: qwen2.5-coder-1.5b\nmain: {{path: {self._model}}}\n"
            f"draft: {{path: {self._model}}}\n{shown}\n",
            encoding="utf-8",
        )
        (folder / "mine.yaml").write_text(_published("mine"), encoding="utf-8")

    def _make(self, word: str, before: str) -> None:
        path = self.folder / word
        if word.endswith(".gguf") and "/" not in word:
            path.symlink_to(self._model)
        elif word.endswith(".yaml") and "/" not in word:
            path.write_text(_WORKLOAD if before == "--workload" else _published(path.stem), encoding="utf-8")
        elif word.endswith(".txt"):
            path.write_text("Say hello.\n", encoding="utf-8")
        elif before == "--corpus":
            path.mkdir()
            (path / "parser.py").write_text("def parser() -> None:\n    pass\n", encoding="utf-8")


def _published(name: str) -> str:
    """A profile of files that others can have, too."""
    return dump(find_profile("smollm2-135m").model_copy(update={"name": name}))


def _environment(folder: Path, cache: Path, *, offline: bool) -> dict[str, str]:
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "llamaspec"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llamaspec "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLAMASPEC_", "HF_"))}
    nowhere = "http://127.0.0.1:9"  # where nothing answers
    return {
        **kept,
        "PATH": f"{programs}{os.pathsep}{kept['PATH']}",
        "LLAMASPEC_CONFIG": str(folder / "config"),
        "LLAMASPEC_CACHE": str(cache),
        "HF_HOME": str(folder / "hub"),
        "LLAMASPEC_THREADS": "1",  # what else the machine does then slows nothing down by more than its share
        **(dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HF_ENDPOINT"), nowhere) if offline else {}),
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """With what is learnt of the model's prices in it."""
    folder = tmp_path_factory.mktemp("cache")
    _keep_models(folder, small_model, small_model.name)
    return folder


def _keep_models(cache: Path, model: Path, *names: str) -> None:
    for number, name in enumerate(names):
        kept = cache / "models" / f"{number:016x}"
        kept.mkdir(parents=True)
        (kept / name).symlink_to(model)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, cache: Path, small_model: Path) -> Place:
    line = request.node.callspec.params["line"]
    if EXAMPLES[line] == "llamaspec rm":
        cache = tmp_path / "cache"
        _keep_models(cache, small_model, line.split()[2])
    return Place(tmp_path, small_model, cache, line)


@contextmanager
def serving(place: Place, line: str) -> Iterator[None]:
    """A server that is well, and is ended by SIGTERM."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            told = f"something else listens on port {PORT}, which the examples name"
            if os.environ.get("LLAMASPEC_REQUIRE_MODELS") == "1":
                pytest.fail(told)
            pytest.skip(told)
    with place.shell(line) as server:
        try:
            assert server.stderr is not None
            assert any(f":{PORT}" in told and "listening" in told for told in server.stderr)
            assert httpx.get(f"http://127.0.0.1:{PORT}/health").json() == {"status": "ok"}
            yield
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=PATIENCE)
    assert server.returncode == 0


def examples_but(*groups: object) -> list[str]:
    return sorted(line for line in EXAMPLES if not any(line in group for group in groups))  # type: ignore[operator]


@pytest.mark.parametrize("line", examples_but(SERVERS, TAKE_MINUTES, LEFT_OUT, ANSWERED))
def test_it_runs_as_printed(line: str, place: Place) -> None:
    if line in BEFORE:
        before = place.shell(BEFORE[line])
        _, told = before.communicate(timeout=PATIENCE)
        assert before.returncode == 0, told
    if "--url" in line:
        with serving(place, "llamaspec serve"):
            process = place.shell(line)
            _, told = process.communicate(timeout=PATIENCE)
    else:
        process = place.shell(line)
        _, told = process.communicate(PIPED.get(line, ""), timeout=PATIENCE)
    expected = NetworkError.exit_code if line in NEED_THE_HUB else 1 if line in DIFFERENT else 0
    assert process.returncode == expected, told
    for name in re.findall(r"(?:-o|>|--json|--html|--bundle) ([\w.]+)", line):
        assert expected or (place.folder / name).stat().st_size > 0


@pytest.mark.parametrize("line", sorted(SERVERS))
def test_servers_answer_and_end(line: str, place: Place) -> None:
    with serving(place, line):
        pass


@pytest.mark.parametrize("line", sorted(TAKE_MINUTES))
def test_those_that_take_minutes_measure_and_end_at_ctrl_c(line: str, place: Place) -> None:
    with place.shell(line) as process:
        assert process.stderr is not None
        assert any("left at most" in told for told in process.stderr)  # of the first thing that is tried
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, told
    assert "Stopped, without a profile." in told


@pytest.mark.parametrize("line", sorted(ANSWERED))
def test_those_that_ask_are_answered_at_a_terminal(line: str, place: Place) -> None:
    keyboard, terminal = os.openpty()
    os.write(keyboard, ANSWERED[line].encode())
    process = place.shell(line, stdin=terminal)
    _, told = process.communicate(timeout=PATIENCE)
    os.close(keyboard)
    os.close(terminal)
    assert process.returncode == 0, told
