"""The folders of caches and settings: writable, how large, and what in them is no use."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from llamaspec.doctor.check import Finding, Visit, attention, broken, ok
from llamaspec.doctor.places import existing, hub_cache
from llamaspec.errors import ProfileError
from llamaspec.hub.cache import cache_root
from llamaspec.hub.inventory import list_models
from llamaspec.profiles import list_entries, user_folder


def run(_visit: Visit) -> Iterator[Finding]:
    places = {
        "cache": (cache_root(), "LLAMASPEC_CACHE"),
        "hub's cache": (hub_cache(), "HF_HOME"),
        "settings": (user_folder().parent, "LLAMASPEC_CONFIG"),
    }
    troubles = [
        trouble
        for name, (folder, variable) in places.items()
        if (trouble := _not_writable(name, folder, variable))
    ]
    yield from troubles
    models = list_models()
    broken_off = [model.name for model in models if not model.complete]
    if broken_off:
        yield attention(
            f"{len(broken_off)} model{'s are' if len(broken_off) > 1 else ' is'} there in part.",
            "Pull again to go on, or remove what is there:\nllamaspec rm " + " ".join(broken_off),
        )
    yield from _invalid_profiles()
    if not troubles:
        yield ok(
            f"Writable; {len(models)} model{'s' * (len(models) != 1)} of together "
            f"{sum(model.size for model in models) / 1e9:.1f} GB.",
            *(f"{name}: {folder}" for name, (folder, _variable) in places.items()),
        )


def _not_writable(name: str, folder: Path, variable: str) -> Finding | None:
    """Tried, since permissions alone don't tell on every system."""
    place = existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            return None
    except OSError as error:
        say = attention if name == "settings" else broken
        return say(
            f"The folder of the {name} can't be written to: {error.strerror}.",
            f"Give yourself the right to write there, or name another folder in {variable}.",
            f"tried in {place}",
        )


def _invalid_profiles() -> Iterator[Finding]:
    for entry in list_entries():
        try:
            entry.load()
        except ProfileError as error:
            yield attention(
                f"The profile {entry.name} is not valid.",
                "Correct it: `llamaspec profile validate` names every line.",
                *error.message.splitlines(),
            )
