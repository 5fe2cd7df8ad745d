"""The binding that is installed: what it was built for, asked of itself in a child process."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from llamaspec.doctor.child import Died, ask

BINDING = "llama-cpp-python"

_SECONDS = 60.0  # the first start of a GPU's driver takes its time


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that the build can use."""

    name: str
    description: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Build:
    """`backends` in ggml's order; `features`: what of the processor the CPU backend was built to use."""

    version: str
    backends: tuple[str, ...]
    features: frozenset[str]
    offloads: bool
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, slots=True)
class BuildTrouble:
    """Why nothing can be said of the build: it can't be used."""

    reason: str
    log: tuple[str, ...] = ()
    installed: bool = True
    for_another_processor: bool = False


def ask_build() -> Build | BuildTrouble:
    """Takes a second or two."""
    answer = ask("llamaspec.native.build_child", seconds=_SECONDS)
    if isinstance(answer, Died):
        return BuildTrouble(
            answer.reason, answer.log, installed_version(BINDING) is not None, answer.illegal_instruction
        )
    return parse_build(answer)


def parse_build(answer: Mapping[str, Any]) -> Build:
    """From what `native/build_child.py` prints."""
    return Build(
        answer["version"],
        tuple(answer["backends"]),
        _features(answer["system_info"]),
        answer["offloads"],
        tuple(Gpu(**gpu) for gpu in answer["gpus"]),
    )


def _features(system_info: str) -> frozenset[str]:
    """Of the CPU backend: `CUDA : ARCHS = 890 | CPU : AVX = 1 | AVX2 = 1 | `."""
    of_cpu = re.split(r"\w+ :", system_info.partition("CPU :")[2])[0]
    return frozenset(name for name, value in re.findall(r"(\w+) = (\w+)", of_cpu) if value != "0")


def requirements() -> dict[str, Requirement]:
    """What llamaspec needs here, by name: of the installed package, or of the source tree."""
    try:
        texts = metadata.requires("llamaspec") or []
    except metadata.PackageNotFoundError:
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        texts = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    found = map(Requirement, texts)
    return {each.name: each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})}


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def wanted_binding() -> str:
    """The version to install: the one that is here if it fits, else the first that does."""
    specifier, installed = requirements()[BINDING].specifier, installed_version(BINDING)
    if installed and specifier.contains(installed, prereleases=True):
        return installed
    return next(each.version for each in specifier if each.operator in (">=", "=="))
