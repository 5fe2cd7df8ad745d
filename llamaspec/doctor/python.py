"""Python itself, and the packages that llamaspec needs."""

import platform
import shlex
import shutil
import struct
import sys
from collections.abc import Iterator, Sequence

from llamaspec import __version__
from llamaspec.doctor.build import BINDING, installed_version, requirements
from llamaspec.doctor.check import Finding, Visit, attention, broken, ok


def run(_visit: Visit) -> Iterator[Finding]:
    bits = 8 * struct.calcsize("P")
    if bits < 64:
        yield broken(
            f"This Python is one of {bits} bits.", "Install a 64-bit Python from https://python.org."
        )
    wanted = {name: each for name, each in requirements().items() if name != BINDING}
    there = {name: installed_version(name) for name in wanted}
    missing = [name for name, version in there.items() if version is None]
    others = [
        name
        for name, version in there.items()
        if version is not None and not wanted[name].specifier.contains(version, prereleases=True)
    ]
    details = [f"{name} {there[name]} is here, {wanted[name]} is needed" for name in others]
    if missing:
        yield broken(
            f"Packages that llamaspec needs are not installed: {', '.join(missing)}.",
            f"Install them:\n{pip_install([str(wanted[name]) for name in missing])}",
        )
    if others:
        yield attention(
            f"Packages are here in other versions than llamaspec needs: {', '.join(others)}.",
            f"Install those that fit:\n{pip_install([str(wanted[name]) for name in others])}",
            *details,
        )
    if bits >= 64 and not missing and not others:
        yield ok(
            f"{platform.python_version()} ({bits} bit), with all the packages that llamaspec needs.",
            f"llamaspec {__version__}",
            f"{platform.python_implementation()} in {sys.prefix}"
            + (" (a virtual environment)" if sys.prefix != sys.base_prefix else ""),
            f"{platform.system()} {platform.release()} {platform.machine()}",
            f"the command llamaspec: {shutil.which('llamaspec') or 'not on the PATH'}",
        )


def pip_install(packages: Sequence[str]) -> str:
    """To paste into a shell (PowerShell on Windows)."""
    if sys.platform == "win32":
        python, *names = ("'" + word.replace("'", "''") + "'" for word in (sys.executable, *packages))
        return f"& {python} -m pip install {' '.join(names)}"
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
