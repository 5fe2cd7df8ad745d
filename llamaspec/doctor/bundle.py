"""What goes with a bug report: findings, versions and settings, but not who and where this is, nor prompts.

doctor.json    the findings
versions.json  Python, the system, llamaspec and the packages that it needs
settings.json  the default profile's, and which variables are set
"""

import json
import os
import platform
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaspec import __version__
from llamaspec.doctor.build import installed_version, requirements
from llamaspec.doctor.check import Examined, Visit, worst
from llamaspec.doctor.private import Scrubber, shared_environment
from llamaspec.errors import UsageError
from llamaspec.replacing import replacing


def report(examined: Sequence[Examined]) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "schema": 1,
        "made_by": f"llamaspec {__version__}",
        "state": worst(each.state for each in examined),
        "checks": [each.as_dict() for each in examined],
    }


def check_target(path: Path) -> None:
    """Before the checks take their time. Raises UsageError for a path that nothing can be written to."""
    if path.exists():
        raise UsageError(f"{path} is there already.", "Name another file, or remove it first.")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {path.parent} to write to.", "Make it, or name another.")


def write_bundle(examined: Sequence[Examined], visit: Visit, path: Path) -> None:
    """A zip file that is whole or not there. Raises OSError."""
    scrubber = Scrubber.of_this_machine()
    contents = {
        "doctor.json": report(examined),
        "versions.json": _versions(),
        "settings.json": _settings(visit, os.environ),
    }
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in contents.items():
            bundle.writestr(name, json.dumps(scrubber.data(content), indent=1, ensure_ascii=False))


def _versions() -> dict[str, object]:
    return {
        "llamaspec": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "packages": {name: installed_version(name) for name in requirements()},
    }


def _settings(visit: Visit, environment: Mapping[str, str]) -> dict[str, Any]:
    profile = visit.profile.model_dump(mode="json", include={"speculation", "runtime", "sampling"})
    for section, key in (("speculation", "corpus"), ("sampling", "stop")):  # a path; texts of the user's
        profile[section][key] = "(set)" if profile[section][key] else None
    return {"environment": shared_environment(environment), "profile": profile}
