"""What comes out of the hub, and how its work is followed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this machine.

    `path`: the file, or the first shard of a split model. `size`: bytes, of all shards together.
    `sha256`: of `path`, where it was checked or is known; a local file is not hashed.
    `origin`: where it came from, for people.
    """

    path: Path
    sha256: str | None
    size: int
    origin: str


class Progress(Protocol):
    """Told about one task at a time; `advance` may come from another thread."""

    def start(self, task: str, total: int | None) -> None:
        """A task begins, such as "Fetching x.gguf"; `total` in bytes where it is known."""

    def advance(self, count: int) -> None:
        """`count` more bytes are done; negative when some have to be done again."""

    def finish(self, complete: bool) -> None:
        """The task ended; not `complete` when it failed."""


class NoProgress:
    def start(self, task: str, total: int | None) -> None: ...

    def advance(self, count: int) -> None: ...

    def finish(self, complete: bool) -> None: ...


@contextmanager
def tracked(progress: Progress, task: str, total: int | None) -> Iterator[None]:
    """`start` now and `finish` at the end, whichever way it ends."""
    progress.start(task, total)
    complete = False
    try:
        yield
        complete = True
    finally:
        progress.finish(complete)
