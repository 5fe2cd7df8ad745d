"""A check, what it finds, and how it is run so that its own failure is a finding, too."""

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llamaspec.doctor.private import without_credentials
from llamaspec.errors import LlamaspecError, ProfileError

if TYPE_CHECKING:
    from llamaspec.doctor.build import Build, BuildTrouble
    from llamaspec.profiles import Profile

_PACKAGE = Path(__file__).resolve().parents[1]


class State(StrEnum):
    """`ATTENTION`: works, and could be better. `BROKEN`: something that llamaspec is for does not work."""

    OK = "ok"
    ATTENTION = "attention"
    BROKEN = "broken"


_BY_SEVERITY = tuple(State)


def worst(states: Iterable[State]) -> State:
    return max(states, key=_BY_SEVERITY.index, default=State.OK)


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, and details for those who ask. What is not `OK` has a remedy, whose last lines may be
    commands to paste.
    """

    state: State
    sentence: str
    details: tuple[str, ...] = ()
    remedy: str = ""


def ok(sentence: str, *details: str) -> Finding:
    return Finding(State.OK, sentence, details)


def attention(sentence: str, remedy: str, *details: str) -> Finding:
    return Finding(State.ATTENTION, sentence, details, remedy)


def broken(sentence: str, remedy: str, *details: str) -> Finding:
    return Finding(State.BROKEN, sentence, details, remedy)


@dataclass
class Visit:
    """What the checks of one run share. `offline`: nothing may be asked of the network."""

    offline: bool = False
    verbose: bool = False
    named: frozenset[str] = field(default_factory=frozenset)

    @cached_property
    def build(self) -> "Build | BuildTrouble":
        """The installed binding, asked once."""
        from llamaspec.doctor.build import ask_build

        return ask_build()

    @cached_property
    def profile(self) -> "Profile":
        """The default one; where a file of the user's that hides it is not valid, the one it hides."""
        from llamaspec.profiles import DEFAULT_PROFILE, find_profile, load_profile, shipped_folder

        try:
            return find_profile(DEFAULT_PROFILE)
        except ProfileError:
            return load_profile(shipped_folder() / f"{DEFAULT_PROFILE}.yaml")


@dataclass(frozen=True, slots=True)
class Check:
    """`name` is what it is called by, `topic` its heading. `run` gives one finding at least."""

    name: str
    topic: str
    run: Callable[[Visit], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Examined:
    """What a check found, and how many seconds it took."""

    check: Check
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def state(self) -> State:
        return worst(finding.state for finding in self.findings)

    def as_dict(self) -> dict[str, object]:
        return {
            "name": self.check.name,
            "topic": self.check.topic,
            "state": self.state,
            "seconds": round(self.seconds, 3),
            "findings": [
                {
                    "state": each.state,
                    "sentence": each.sentence,
                    "details": each.details,
                    "remedy": each.remedy,
                }
                for each in self.findings
            ],
        }


def examine(check: Check, visit: Visit) -> Examined:
    """Run a check. Where it fails itself, that is the last of its findings."""
    started = time.monotonic()
    findings: list[Finding] = []
    try:
        findings.extend(check.run(visit))
    except LlamaspecError as error:
        sentence, *more = error.message.splitlines()
        findings.append(broken(sentence, error.hint or _REPORT, *more))
    except Exception as error:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        findings.append(broken(f"This check failed itself: {said}", _REPORT, *_places(error)))
    cleaned = tuple(_without_credentials(finding) for finding in findings)
    return Examined(check, cleaned, time.monotonic() - started)


_REPORT = "If it stays so, report it with what `llamaspec doctor --bundle FILE.zip` writes."


def _places(error: Exception) -> list[str]:
    """Where in this package it happened: no paths of the machine."""
    frames = [
        (Path(frame.filename), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    return [f"at llamaspec/{path.relative_to(_PACKAGE).as_posix()}:{line}" for path, line in frames]


def _without_credentials(finding: Finding) -> Finding:
    return replace(
        finding,
        sentence=without_credentials(finding.sentence),
        details=tuple(map(without_credentials, finding.details)),
        remedy=without_credentials(finding.remedy),
    )
