"""The checks that there are, in the order in which they make sense to a reader."""

from collections.abc import Iterable, Sequence
from importlib import import_module

from llamaspec.doctor.check import Check, Finding, Visit
from llamaspec.errors import UsageError


def _check(name: str, topic: str) -> Check:
    """The check in the module of this name, imported when it runs: its imports may be what is amiss."""

    def run(visit: Visit) -> Iterable[Finding]:
        found: Iterable[Finding] = import_module(f"llamaspec.doctor.{name}").run(visit)
        return found

    return Check(name, topic, run)


CHECKS = (
    _check("python", "Python"),
    _check("binding", "Binding to llama.cpp"),
    _check("gpu", "GPU"),
    _check("memory", "Memory"),
    _check("disk", "Disk"),
    _check("folders", "Folders"),
    _check("network", "Network"),
    _check("pair", "Default pair"),
    _check("speed", "Speed"),
)


def choose(names: Sequence[str]) -> list[Check]:
    """The checks of these names in their own order; without names all. Raises UsageError."""
    known = [check.name for check in CHECKS]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(
            f"There is no check {', '.join(map(repr, unknown))}.", f"The checks are {', '.join(known)}."
        )
    return [check for check in CHECKS if not names or check.name in names]
