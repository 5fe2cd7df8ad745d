"""What the shell offers where a name is half typed.

Each function takes the beginning and gives what goes on from it, some with a word of help. They run at
every press of the Tab key: nothing is fetched, no model is opened, and what goes wrong offers nothing.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

Offers = list[tuple[str, str]]
"""Values with their help, which may be empty."""


def _quietly(offer: Callable[[str], Iterable[tuple[str, str]]]) -> Callable[[str], Offers]:
    """Those of the offers that begin with what is typed. An error would be written into the command line.

    Typer looks at the names of parameters: the function that it is given must have `incomplete` itself.
    """

    def completing(incomplete: str) -> Offers:
        try:
            return [each for each in offer(incomplete) if each[0].startswith(incomplete)]
        except Exception:
            return []

    return completing


def _listed(names: Callable[[], Iterable[tuple[str, str]]]) -> Callable[[str], Offers]:
    """The same for an option that takes several with commas; what is there already is not offered again."""

    def completing(incomplete: str) -> Iterable[tuple[str, str]]:
        before, comma, _ = incomplete.rpartition(",")
        there = before.split(",")
        return [(f"{before}{comma}{name}", help) for name, help in names() if name not in there]

    return _quietly(completing)


@_quietly
def profiles(incomplete: str) -> Iterable[tuple[str, str]]:
    from llamaspec.profiles import list_entries

    return [(entry.name, entry.shelf) for entry in list_entries()]


@_quietly
def own_profiles(incomplete: str) -> Iterable[tuple[str, str]]:
    from llamaspec.profiles import list_entries

    return [(entry.name, "") for entry in list_entries() if entry.shelf == "user"]


@_quietly
def models(incomplete: str) -> Iterable[tuple[str, str]]:
    """Those in the caches, as `-m` takes them, and model files that are named by a path."""
    from llamaspec.hub.inventory import list_models
    from llamaspec.hub.names import is_gguf

    path = Path(incomplete)
    folder = path if incomplete.endswith("/") else path.parent
    beside = [str(folder / file.name) for file in folder.glob("*") if is_gguf(file.name)]
    kept = [model for model in list_models() if model.complete]
    return [
        *((name, "") for name in sorted(beside)),
        *((model.name if model.repo else str(model.paths[0]), model.origin) for model in kept),
    ]


@_quietly
def kept_models(incomplete: str) -> Iterable[tuple[str, str]]:
    """Those in the caches, as `llamaspec ls` names them."""
    from llamaspec.hub.inventory import list_models

    return [(model.name, model.origin) for model in list_models()]


@_quietly
def profiles_or_models(incomplete: str) -> Iterable[tuple[str, str]]:
    return [*profiles(incomplete), *models(incomplete)]


@_quietly
def conversations(incomplete: str) -> Iterable[tuple[str, str]]:
    from llamaspec.chat.library import Library

    return [(kept.name, "") for kept in Library().list()]


@_quietly
def checks(incomplete: str) -> Iterable[tuple[str, str]]:
    from llamaspec.doctor.topics import CHECKS

    return [(check.name, check.topic) for check in CHECKS]


@_quietly
def devices(incomplete: str) -> Iterable[tuple[str, str]]:
    """Not those that are there: to ask llama.cpp takes too long."""
    return [(name, "") for name in ("auto", "cpu", "cuda", "metal", "vulkan", "rocm", "sycl")]


@_quietly
def kv_types(incomplete: str) -> Iterable[tuple[str, str]]:
    from typing import get_args

    from llamaspec.settings import KVType

    return [(name, "") for name in get_args(KVType)]


@_quietly
def kinds_of_work(incomplete: str) -> Iterable[tuple[str, str]]:
    """Of the shipped workload."""
    from llamaspec.bench.workload import load_workload

    return [(kind, "") for kind in load_workload().kinds]


@_listed
def drafters() -> Iterable[tuple[str, str]]:
    from typing import get_args

    from llamaspec.settings import DrafterName

    return [(name, "") for name in get_args(DrafterName)]


@_listed
def settings() -> Iterable[tuple[str, str]]:
    """Of speculation, as benchmarks name them."""
    from llamaspec.bench import naming

    plain = (naming.PLAIN, naming.DEFAULT, naming.AUTO, naming.OWN)
    return [(name, "") for name in (*plain, *naming.GRID)]
