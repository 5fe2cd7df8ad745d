"""Where conversations are kept: a JSON file each, for the user alone, written whole or not at all.

They lie in `conversations` in the user's data folder, what was typed in `chat_history` in the state folder.
`LLAMASPEC_CONFIG` puts both into that folder.
"""

import difflib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from pydantic import ValidationError

from llamaspec.chat.conversation import Conversation
from llamaspec.errors import LlamaspecError, UsageError
from llamaspec.replacing import replacing

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]", re.IGNORECASE)  # Windows has these in every folder
_AUTOMATIC = re.compile(r"\d{4}-\d\d-\d\d-\d{6}(-\d+)?")
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A conversation's file. `changed`: seconds since the epoch."""

    name: str
    path: Path
    changed: float


class Library:
    """The conversations of a folder, by name."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` None: the user's own."""
        self.folder = folder or _root(platformdirs.user_data_dir) / "conversations"

    def list(self) -> list[Kept]:
        """All there are, the one that was changed last first."""
        return sorted(self._files(), key=lambda kept: (kept.changed, kept.name), reverse=True)

    def read(self, name: str) -> Conversation:
        """Raises UsageError: there is none of this name, or its file holds something else."""
        path = self.path(name)
        try:
            with path.open("rb") as file:
                raw = file.read(_MAX_BYTES + 1)
            if len(raw) > _MAX_BYTES:
                raise UsageError(f"{path} is too large for a conversation.")
            return Conversation.model_validate_json(raw)
        except FileNotFoundError:
            near = difflib.get_close_matches(name, [kept.name for kept in self.list()], n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else "`llamaspec chat --list` shows them."
            raise UsageError(f"There is no conversation named {name}.", hint) from None
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise UsageError(f"{path} holds no conversation: {place}: {first['msg']}.") from None

    def prepare(self) -> None:
        """Make the folder, for the user alone. Raises LlamaspecError where the disk refuses."""
        with _kept_at(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, name: str, conversation: Conversation) -> None:
        """Raises UsageError for what is no name, LlamaspecError where the disk refuses."""
        path = self.path(name)
        self.prepare()
        with _kept_at(path), replacing(path) as partial, open(partial, "wb", opener=open_private) as file:
            file.write(conversation.model_dump_json(indent=1).encode("utf-8", "replace"))

    def new_name(self) -> str:
        """A name by the time, that no conversation has."""
        name = start = time.strftime("%Y-%m-%d-%H%M%S")
        number = 1
        while self.path(name).exists():
            number += 1
            name = f"{start}-{number}"
        return name

    @staticmethod
    def is_automatic(name: str) -> bool:
        """Whether `new_name` has made this name."""
        return _AUTOMATIC.fullmatch(name) is not None

    def remove(self, name: str) -> None:
        """There is no conversation of this name any more."""
        self.path(name).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Where a conversation of this name is or would be. Raises UsageError for what is no name."""
        if not _NAME.fullmatch(name) or _DEVICES.fullmatch(name):
            raise UsageError(
                f"{name[:80]!r} is no name for a conversation.", "Take up to 64 of a to z, 0 to 9, - and _."
            )
        return self.folder / f"{name}.json"

    def _files(self) -> Iterator[Kept]:
        for path in self.folder.glob("*.json"):
            if _NAME.fullmatch(path.stem):
                with suppress(OSError):  # gone in the meantime
                    yield Kept(path.stem, path, path.stat().st_mtime)


@contextmanager
def _kept_at(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LlamaspecError(
            f"The conversation can't be kept: {error.strerror}.",
            f"It would be {path}; --no-save does without.",
        ) from error


def history_file() -> Path:
    """Where the lines that were typed are kept."""
    return _root(platformdirs.user_state_dir) / "chat_history"


def open_private(path: str, flags: int) -> int:
    """For `open`: a file that it makes is for the user alone."""
    return os.open(path, flags, 0o600)


def _root(place: Callable[..., str]) -> Path:
    return Path(os.environ.get("LLAMASPEC_CONFIG") or place("llamaspec", appauthor=False)).expanduser()
