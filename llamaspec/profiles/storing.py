"""The user's own profiles on the disk: written whole or not at all, and never over another unasked."""

from pathlib import Path

from llamaspec.errors import ProfileNotFoundError, UsageError
from llamaspec.profiles.document import shown
from llamaspec.profiles.library import Entry, list_entries, shipped_folder, user_folder
from llamaspec.profiles.profile import Profile, dump
from llamaspec.replacing import replacing


def entry_named(name: str) -> Entry | None:
    """What this name leads to now."""
    return next((entry for entry in list_entries() if entry.name == name), None)


def place_of(name: str) -> Path:
    """The file of the user's profile of this name, there or not."""
    entry = entry_named(name)
    return entry.path if entry and entry.shelf == "user" else user_folder() / f"{name}.yaml"


def hides_shipped(name: str) -> bool:
    """Whether a profile of the user's takes, or would take, the place of a shipped one."""
    return (shipped_folder() / f"{name}.yaml").is_file()


def refuse_to_overwrite(path: Path, overwrite: bool = False) -> None:
    """Raises UsageError: there is a file, and it is not to be overwritten."""
    if not overwrite and path.exists():
        raise UsageError(f"{path} exists already.", "Choose another name, or write over it with --force.")


def refuse_missing_folder(path: Path) -> None:
    """Raises UsageError: a name with a slip in it makes no folders."""
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path} is in a folder that is not there.", "Make the folder first.")


def write_profile(profile: Profile, path: Path, *, overwrite: bool = False) -> None:
    """Raises UsageError: there is a file, and it is not to be overwritten. OSError."""
    write_text(dump(profile), path, overwrite=overwrite)


def write_text(text: str, path: Path, *, overwrite: bool = False) -> None:
    """As `write_profile`."""
    refuse_to_overwrite(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def own_entry(name: str) -> Entry:
    """The user's profile of this name.

    Raises:
        ProfileNotFoundError: there is none, or it is a shipped one.
    """
    entry = entry_named(name)
    if entry is None or entry.shelf != "user":
        raise ProfileNotFoundError(
            f"{shown(name)} is a shipped profile."
            if entry
            else f"You have no profile named '{shown(name)}'.",
            "`llamaspec profile list` shows what there is.",
        )
    return entry
