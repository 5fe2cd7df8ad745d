"""`llamaspec doctor`, as typed."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llamaspec.cli import app
from llamaspec.doctor import topics
from llamaspec.doctor.check import Check, Finding, Visit, attention, broken, ok
from llamaspec.errors import UsageError

RUNNER = CliRunner()


def fine(_visit: Visit) -> Iterator[Finding]:
    yield ok("It is fine.", "a detail")


def so_so(_visit: Visit) -> Iterator[Finding]:
    yield ok("One half is fine.")
    yield attention("The other is so-so.", "Mend it:\nmend --all " + "x" * 100, "why so")


def bad(_visit: Visit) -> Iterator[Finding]:
    yield broken("It is broken.", "Get another.")


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (Check("fine", "Fine", fine), Check("soso", "So-so", so_so), Check("bad", "Bad", bad))
    monkeypatch.setattr(topics, "CHECKS", checks)


def doctor(*arguments: str) -> Result:
    return RUNNER.invoke(app, ["doctor", *arguments])


def test_topics_with_marks_and_remedies() -> None:
    result = doctor()
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "[✓] Fine: It is fine.",
        "[!] So-so",
        "    ! The other is so-so.",
        "      Mend it:",
        "        mend --all " + "x" * 100,
        "[✗] Bad: It is broken.",
        "      Get another.",
        "",
        "1 broken, 1 to improve (of 3 topics).",
    ]


def test_details() -> None:
    result = doctor("-v", "fine", "soso")
    assert result.exit_code == 0  # nothing is broken
    assert result.stdout.splitlines()[:5] == [
        "[✓] Fine: It is fine.",
        "      - a detail",
        "[!] So-so",
        "    ✓ One half is fine.",
        "    ! The other is so-so.",
    ]


def test_all_is_well() -> None:
    assert doctor("fine").stdout == "[✓] Fine: It is fine.\n\nAll is well.\n"


def test_json() -> None:
    result = doctor("bad", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["schema"], report["state"]) == (1, 1, "broken")
    [check] = report["checks"]
    assert (check["name"], check["topic"], check["state"]) == ("bad", "Bad", "broken")
    assert check["findings"] == [
        {"state": "broken", "sentence": "It is broken.", "details": [], "remedy": "Get another."}
    ]


def test_unknown_names_are_refused_with_those_there_are() -> None:
    error = doctor("fine", "sped").exception
    assert isinstance(error, UsageError)
    assert error.message == "There is no check 'sped'."
    assert error.hint == "The checks are fine, soso, bad."


def test_bundle(tmp_path: Path) -> None:
    target = tmp_path / "report.zip"
    assert doctor("bad", "--bundle", str(target)).exit_code == 1
    with zipfile.ZipFile(target) as bundle:
        assert json.loads(bundle.read("doctor.json"))["state"] == "broken"
    assert isinstance(doctor("--bundle", str(target)).exception, UsageError)


def typed(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """In a process of its own, with the real checks."""
    return subprocess.run(
        [sys.executable, "-m", "llamaspec", "doctor", *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        check=False,
    )


def test_on_this_machine(tmp_path: Path) -> None:
    done = typed(*("python", "binding", "gpu", "memory", "disk", "folders", "network", "--json", "--offline"))
    report = json.loads(done.stdout)
    assert [check["name"] for check in report["checks"]] == [
        *("python", "binding", "gpu", "memory", "disk", "folders", "network")
    ]
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert states["python"] == states["network"] == "ok"
    assert states["binding"] != "broken", report["checks"][1]
    assert done.returncode == int("broken" in states.values())
    assert done.stderr == b""


BROKEN_BINDINGS = {
    "import": "raise RuntimeError('libllama.so: cannot open shared object file')",
    "crash": "import os; os.abort()",
}


@pytest.mark.parametrize("kind", BROKEN_BINDINGS)
def test_a_binding_that_can_not_be_imported_is_a_finding(tmp_path: Path, kind: str) -> None:
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text(BROKEN_BINDINGS[kind])
    found_first = os.pathsep.join([str(tmp_path), *sys.path])
    done = typed("binding", "gpu", "memory", "speed", PYTHONPATH=found_first, NO_COLOR="1")
    text = done.stdout.decode()
    assert done.returncode == 1
    assert "[✗] Binding to llama.cpp: llama-cpp-python is installed, and can't be used: " in text
    assert kind != "import" or "cannot open shared object file" in text
    assert "--force-reinstall --no-cache-dir llama-cpp-python==" in text
    assert "[!] GPU: " in text
    assert "Memory" in text
    assert "[!] Speed: Not measured: the binding does not work." in text
    assert "Traceback" not in text + done.stderr.decode()
    assert "\x1b" not in text
