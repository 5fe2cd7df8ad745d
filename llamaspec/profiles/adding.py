"""What taking over somebody's profile comes to: the downloads it leads to, and what it sets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from llamaspec.errors import HashMismatchError, ModelFetchError, UsageError
from llamaspec.hub import huggingface
from llamaspec.hub.fetch import find_cached
from llamaspec.hub.names import shard_names
from llamaspec.hub.sources import HubMirror, ModelSource, WheelMirror
from llamaspec.profiles.document import printable
from llamaspec.profiles.foreign import leaves
from llamaspec.profiles.library import find
from llamaspec.profiles.problems import dotted
from llamaspec.profiles.profile import NAME_HINT, Profile
from llamaspec.profiles.storing import entry_named
from llamaspec.settings import SECTIONS


@dataclass(frozen=True, slots=True)
class Download:
    """A model that the profile leads to. `size` in bytes, of all its files, where it is known.

    `licence` is what its repository says; `trouble` why the hub could not be asked. `places` are where
    it is looked for, in order. `checked`: the profile has a SHA-256 that the bytes must have.
    """

    role: str
    places: tuple[str, ...]
    size: int | None
    licence: str | None
    checked: bool
    here: bool
    trouble: str | None


def find_foreign(reference: str, name: str | None = None) -> Profile:
    """Somebody's profile, by address, hub reference or file; under `name`, if given.

    A file is held to be somebody's too: who wrote it needs not add it.

    Raises:
        UsageError: it is here under a name, or `name` is none.
        ProfileError, ProfileNotFoundError, ModelFetchError: as `find`; what must not come from elsewhere.
    """
    if entry_named(reference):
        raise UsageError(f"{reference} is here already.", "Name an address, a file or a place on the hub.")
    profile = find(reference, foreign=True).profile
    if name is None:
        return profile
    try:
        return Profile.model_validate(profile.model_dump(by_alias=True) | {"name": name})
    except ValidationError:
        raise UsageError(f"{printable(name)!r} can't be a profile's name.", NAME_HINT) from None


def downloads(profile: Profile) -> list[Download]:
    """Of a profile from elsewhere, with what the hub says now. No model is fetched.

    Raises:
        HashMismatchError: the hub has another file than the profile promises.
    """
    sources = (("main", profile.main), ("draft", profile.draft))
    return [_download(role, source) for role, source in sources if isinstance(source, ModelSource)]


def settings_of(profile: Profile) -> Iterator[tuple[str, Any]]:
    """(key, value) for each setting that is not the default."""
    data = profile.model_dump(mode="json", exclude_defaults=True, include=set(SECTIONS))
    return ((dotted(key), value) for key, value in leaves(data))


def _download(role: str, source: ModelSource) -> Download:
    here = find_cached(source)
    record = HubMirror(repo=source.repo, file=source.file, revision=source.revision)
    size, licence, trouble = source.size, None, None
    try:
        repository = huggingface.describe(source.repo, source.revision)
        licence = repository.licence
        files = [repository.files.get(name) for name in shard_names(source.file)]
        if files[0] is None or None in files:
            trouble = f"{source.repo} has no such file now."
        else:
            named = repository.files[source.file]
            named.check(record, source.sha256, source.size)
            sizes = [file.size for file in files if file and file.size]
            size = sum(sizes) if len(sizes) == len(files) else size
    except HashMismatchError:
        raise
    except ModelFetchError as error:
        trouble = error.message
    return Download(
        role=role,
        places=tuple(_place(place) for place in (record, *source.mirrors)),
        size=here.size if here else size,
        licence=licence and printable(licence)[:200],
        checked=source.sha256 is not None,
        here=here is not None,
        trouble=trouble,
    )


def _place(place: HubMirror | WheelMirror) -> str:
    if isinstance(place, WheelMirror):
        first, last = place.wheels[0].package, place.wheels[-1].package
        return f"package index: {first}" + (f" … {last}, {len(place.wheels)} wheels" if last != first else "")
    name = f"{place.repo}/{place.file}"
    # Letters of another alphabet can look the same.
    return f"Hugging Face: {name} at {place.revision}" + ("" if name.isascii() else f" ({ascii(name)[1:-1]})")
