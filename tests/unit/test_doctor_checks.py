"""How a check is run, what of Python is checked, and how children are asked."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

import pytest
from doctoring import only, visit
from packaging.requirements import Requirement

from llamaspec.doctor import build, child, python
from llamaspec.doctor.check import Check, State, Visit, attention, examine, ok, worst
from llamaspec.errors import FileMissingError


def test_a_check_that_fails_is_broken_and_keeps_what_it_found() -> None:
    def run(_visit: Visit) -> Any:
        yield ok("So far so good.")
        yield 1 / 0

    examined = examine(Check("odd", "Odd", run), visit())
    assert examined.state is State.BROKEN
    assert [finding.sentence for finding in examined.findings] == [
        "So far so good.",
        "This check failed itself: ZeroDivisionError: division by zero",
    ]
    assert any("llamaspec/doctor/check.py:" in detail for detail in examined.findings[1].details)


def test_our_own_errors_are_told_as_they_are() -> None:
    def run(_visit: Visit) -> Any:
        raise FileMissingError("There is no file.\nNor was there.", "Look for it.")

    [finding] = examine(Check("odd", "Odd", run), visit()).findings
    assert (finding.state, finding.sentence, finding.remedy) == (
        State.BROKEN,
        "There is no file.",
        "Look for it.",
    )
    assert finding.details == ("Nor was there.",)


def test_credentials_are_not_shown() -> None:
    def run(_visit: Visit) -> Any:
        yield attention("http://me:pass@proxy fails", "Ask http://me:pass@proxy", "token hf_abcdefghijklmnop")

    [finding] = examine(Check("odd", "Odd", run), visit()).findings
    assert "pass" not in repr(finding)
    assert "hf_" not in repr(finding)


def test_the_worst_counts() -> None:
    assert worst([State.OK, State.BROKEN, State.ATTENTION]) is State.BROKEN
    assert worst([]) is State.OK


def test_python_names_what_is_missing_or_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(python.run(visit())).state is State.OK
    wanted = {name: Requirement(f"{name}{version}") for name, version in (("absent", ">=1"), ("rich", ">99"))}
    monkeypatch.setattr(python, "requirements", lambda: wanted)
    missing, others = python.run(visit())
    assert missing.state is State.BROKEN
    assert "absent" in missing.sentence
    assert missing.remedy.splitlines()[-1].endswith("-m pip install 'absent>=1'")
    assert others.state is State.ATTENTION
    assert "rich" in others.sentence


def test_requirements_are_those_of_the_package() -> None:
    names = build.requirements()
    assert "psutil" in names
    assert "pytest" not in names  # only for its developers
    assert all(metadata.version(name) for name in names)


@pytest.fixture
def run_child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], Any]:
    """Put a question to a child that runs the given code."""
    real = subprocess.run

    def ask(code: str, seconds: float = 30.0) -> Any:
        def instead(_words: list[str], **options: Any) -> Any:
            return real([sys.executable, "-c", code], **options)

        monkeypatch.setattr(subprocess, "run", instead)
        return child.ask("some.module", seconds=seconds)

    return ask


def test_children_and_their_deaths(run_child: Callable[..., Any]) -> None:
    assert run_child("print('noise'); print('{\"a\": 1}')") == {"a": 1}
    assert run_child("raise KeyError('x')").reason == "KeyError: 'x'"
    assert run_child("raise SystemExit(3)").reason == "exit code 3"
    assert run_child("pass").reason == run_child("print('no JSON')").reason == "it ended without an answer"
    assert run_child("print(1)").reason == "it gave another answer than was asked for"
    assert run_child("import time; time.sleep(60)", 0.2).reason == "no answer within 0 seconds"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_child_that_is_killed(run_child: Callable[..., Any]) -> None:
    ends = "import os, signal; os.kill(os.getpid(), signal.{})"
    assert run_child(ends.format("SIGILL")).illegal_instruction
    assert run_child(ends.format("SIGABRT")).reason == "SIGABRT"
