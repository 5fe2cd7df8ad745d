"""What the tests of `llamaspec doctor` share: visits to made-up machines."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from llamaspec.doctor.build import Build
from llamaspec.doctor.check import Finding, State, Visit
from llamaspec.hub.sources import LocalSource, ModelSource
from llamaspec.profiles import Profile

CPU_BUILD = Build("0.3.36", ("CPU",), frozenset({"AVX", "AVX2"}), offloads=False, gpus=())


def visit(**known: Any) -> Visit:
    made = Visit(**{key: known.pop(key) for key in ("offline", "verbose", "named") if key in known})
    made.__dict__.update(known)  # what it would ask for itself
    return made


def source(file: Path | None = None, **fields: Any) -> ModelSource:
    if file is not None:
        content = file.read_bytes()
        fields |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "file": file.name}
    return ModelSource(**{"repo": "owner/name", "file": "model.gguf", **fields})


def profile(main: ModelSource | LocalSource, draft: ModelSource | None = None) -> Profile:
    return Profile(schema=1, name="made-up", main=main, draft=draft)


def use_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and settings of their own, none of which is there yet."""
    monkeypatch.setenv("LLAMASPEC_CACHE", str(folder / "cache"))
    monkeypatch.setenv("LLAMASPEC_CONFIG", str(folder / "config"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))


def only(findings: Any) -> Finding:
    """The one finding, which has a remedy unless all is well."""
    [finding] = findings
    if finding.state is not State.OK:
        assert finding.remedy
    return finding
