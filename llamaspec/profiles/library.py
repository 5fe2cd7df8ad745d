"""Where profiles are: the user's folder, the shipped ones, a path, an address, the hub."""

import difflib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import ValidationError

from llamaspec.errors import ProfileError, ProfileNotFoundError
from llamaspec.hub.sources import HubMirror
from llamaspec.profiles.document import MAX_BYTES, printable, shown
from llamaspec.profiles.foreign import FILE_KEYS
from llamaspec.profiles.profile import NAME, Profile, overlay, parse_profile

DEFAULT_PROFILE = "qwen2.5-coder-1.5b"

_SUFFIXES = (".yaml", ".yml")
_HUB_FORM = re.compile(
    r"(?P<repo>[^/:@]+/[^/:@]+)/(?P<file>[^:@]+\.ya?ml)(?:@(?P<revision>.+))?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Found:
    """A profile, and the path or address it was read from."""

    profile: Profile
    origin: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that a profile's name leads to; it may hold anything until it is loaded."""

    name: str
    shelf: Literal["user", "shipped"]
    path: Path

    def load(self) -> Profile:
        """Raises ProfileError: the file can't be read, is not valid, or calls itself something else."""
        profile = load_profile(self.path)
        if profile.name != self.name:
            raise ProfileError(
                f"{self.path}: name: '{profile.name}' is not the file's name",
                f"Name the profile {self.name}, or the file {profile.name}{self.path.suffix}.",
            )
        return profile


def user_folder() -> Path:
    """The user's own profiles: `profiles` in LLAMASPEC_CONFIG, or in the system's place for settings."""
    root = os.environ.get("LLAMASPEC_CONFIG") or platformdirs.user_config_dir("llamaspec", appauthor=False)
    return Path(root).expanduser() / "profiles"


def shipped_folder() -> Path:
    """The folder of the shipped profiles: inside an installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "profiles"


def list_entries() -> list[Entry]:
    """What can be had by name, valid or not, in order of the names; the user's hide shipped ones."""
    entries: dict[str, Entry] = {}
    shelves: tuple[tuple[Literal["user", "shipped"], Path], ...] = (
        ("shipped", shipped_folder()),
        ("user", user_folder()),
    )
    for shelf, folder in shelves:
        # Backwards, so that of `x.yaml` and `x.yml` the first always counts.
        for path in sorted(folder.glob("*.y*ml"), reverse=True):
            if path.suffix in _SUFFIXES and NAME.fullmatch(path.stem) and path.is_file():
                entries[path.stem] = Entry(path.stem, shelf, path)
    return sorted(entries.values(), key=lambda entry: entry.name)


def list_profiles() -> list[Profile]:
    """The valid profiles that can be had by name, in order of their names."""
    profiles = []
    for entry in list_entries():
        with suppress(ProfileError):
            profiles.append(entry.load())
    return profiles


def find_profile(reference: str) -> Profile:
    """The profile that `find` finds."""
    return find(reference).profile


def find(reference: str, *, foreign: bool = False) -> Found:
    """Find a profile by path, by name (the user's, then the shipped), by `https://` address, or as
    `owner/repo/file.yaml[@revision]` on the hub. A file that exists goes before anything else it could mean.

    What comes from an address or the hub is somebody's, and may not act on this machine; with `foreign` a
    file is held to that too.

    Raises:
        ProfileNotFoundError: there is none, with the nearest names as hint.
        ProfileError: it is there, and not valid.
        ModelFetchError: with its kinds, where a server or the hub does not give it.
    """
    if "://" in reference:
        from llamaspec.profiles.remote import fetch_url

        return _from_elsewhere(*fetch_url(reference))
    if _looks_like_path(reference) and (path := _existing(reference)):
        return _from_elsewhere(*_read(path), path.name) if foreign else Found(load_profile(path), str(path))
    for entry in list_entries():
        if entry.name == reference:
            return Found(entry.load(), str(entry.path))
    if hub_file := _hub_file(reference):
        from llamaspec.profiles.remote import fetch_from_hub

        return _from_elsewhere(*fetch_from_hub(hub_file))
    raise _not_found(reference)


def load_profile(path: Path) -> Profile:
    """Read a profile from a local file. Paths in it are relative to that.

    Raises:
        ProfileNotFoundError: no such file. ProfileError: it can't be read, or is not valid.
    """
    raw, origin = _read(path)
    return _with_absolute_paths(parse_profile(raw, origin), path.absolute().parent)


def _read(path: Path) -> tuple[bytes, str]:
    """(content, printable path). Errors: as `load_profile`."""
    origin = printable(str(path))
    try:
        if path.exists() and not path.is_file():
            raise ProfileError(f"{origin}: not a file")
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1), origin
    except FileNotFoundError:
        raise ProfileNotFoundError(f"{origin}: no such file") from None
    except OSError as error:
        raise ProfileError(f"{origin}: can't be read: {error.strerror}") from error


def _with_absolute_paths(profile: Profile, folder: Path) -> Profile:
    for section, key in FILE_KEYS:
        place = getattr(getattr(profile, section), key, None)
        if place is not None and not place.startswith("~"):
            profile = overlay(profile, {section: {key: os.fspath(folder / place)}})
    return profile


def _from_elsewhere(raw: bytes, place: str, origin: str | None = None) -> Found:
    """What comes from elsewhere says so from here on, wherever it may be written. Raises ProfileError.

    `origin`: what it is to say in place of `place`.
    """
    profile = parse_profile(raw, place, foreign=True)
    return Found(profile.model_copy(update={"origin": printable(origin or place)}), place)


def _looks_like_path(reference: str) -> bool:
    return reference.lower().endswith(_SUFFIXES) or "/" in reference or "\\" in reference


def _existing(reference: str) -> Path | None:
    try:
        path = Path(reference).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a name too long for this system; ~someone who is not known here
        return None


def _hub_file(reference: str) -> HubMirror | None:
    if (form := _HUB_FORM.fullmatch(reference)) is None:
        return None
    try:
        return HubMirror(repo=form["repo"], file=form["file"], revision=form["revision"] or "main")
    except ValidationError:
        return None


def _not_found(reference: str) -> ProfileNotFoundError:
    if _looks_like_path(reference):
        return ProfileNotFoundError(f"There is no profile at {shown(reference)}")
    names = [entry.name for entry in list_entries()]
    near = difflib.get_close_matches(reference.lower(), names, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else "`llamaspec profile list` shows what there is."
    return ProfileNotFoundError(f"There is no profile named '{shown(reference)}'", hint)
