"""A corpus on the disk: its text files, and the index of them that is kept in a cache."""

import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamaspec.decode.drafters.corpus import ORDERS, SEPARATOR, CorpusIndex
from llamaspec.errors import FileMissingError, UsageError

log = logging.getLogger(__name__)

Tokenize = Callable[[str], list[int]]

_FORMAT = 1  # of a stored index, and of how files become tokens: goes up when either changes
_MAX_FILE = 2_000_000  # bytes: what is larger in a folder is data, or was made by a program
_MAX_TEXT = 64_000_000  # bytes
_MAX_TOKENS = 16_000_000


@dataclass(frozen=True, slots=True)
class _File:
    """`name` is relative to the corpus, `size` in bytes, `modified` in nanoseconds."""

    path: Path
    name: str
    size: int
    modified: int


def load_corpus(path: Path, tokenize: Tokenize, cache: Path, vocabulary: str) -> CorpusIndex:
    """The index of a text file, or of the text files below a folder.

    What is hidden in a folder is no part of it, nor are links, binary files (with NUL bytes) and files over
    2 MB. Past 64 MB of text or 16 million tokens nothing more is read. A warning tells of what is left out
    for its size. The index is stored in the folder `cache` and made anew when a file has changed, or
    `vocabulary`, which names what `tokenize` does. Raises FileMissingError for a path that is not there, and
    UsageError where it holds no text.
    """
    if not path.exists():
        raise FileMissingError(f"There is no file or folder {path}.", "Check where the corpus is.")
    found = list(_files_at(path))
    files = found if path.is_file() else [file for file in found if file.size <= _MAX_FILE]
    family = _digest(os.fsdecode(path.resolve()), vocabulary)
    state = _digest(_FORMAT, ORDERS, [(file.name, file.size, file.modified) for file in files])
    stored = cache / f"{family}-{state}.npz"
    if (index := _read(stored)) is not None:
        return index
    left_out = [f"{len(found) - len(files)} files over 2 MB"] if len(found) > len(files) else []
    tokens = _tokens_of(files, tokenize, left_out)
    if left_out:
        log.warning("Left out of the corpus %s: %s.", path, ", ".join(left_out))
    if not len(tokens):
        raise UsageError(f"There is no text in {path}.", "A corpus is a text file, or a folder of them.")
    index = CorpusIndex.build(tokens)
    _store(index, stored, family)
    return index


def _files_at(path: Path) -> Iterator[_File]:
    """The files of a corpus, in an order that depends on their names alone."""
    if path.is_file():
        status = path.stat()
        yield _File(path, path.name, status.st_size, status.st_mtime_ns)
        return
    root = path.resolve()
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        # A folder that really is elsewhere is a link: Windows has more than one kind.
        folders[:] = sorted(f for f in folders if not f.startswith(".") and (here / f).resolve() == here / f)
        for name in sorted(name for name in names if not name.startswith(".")):
            file = here / name
            try:
                status = file.lstat()
            except OSError:
                continue  # gone since it was listed
            if stat.S_ISREG(status.st_mode):
                yield _File(file, file.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns)


def _tokens_of(files: list[_File], tokenize: Tokenize, left_out: list[str]) -> NDArray[np.int32]:
    """The tokens of all files with a separator behind each; adds to `left_out` what is missing."""
    parts: list[NDArray[np.int32]] = []
    text_size = token_count = 0
    for name, data in _pieces(files, left_out):
        if text_size >= _MAX_TEXT or token_count >= _MAX_TOKENS:
            left_out.append(f"everything from {name} on, as it would become too large")
            break
        if b"\0" in data:
            continue
        text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n")
        parts.append(np.array([*tokenize(text), SEPARATOR], np.int32))
        text_size += len(data)
        token_count += len(parts[-1])
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def _pieces(files: list[_File], left_out: list[str]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files that are not empty, the long ones in pieces of whole lines."""
    unreadable = 0
    for file in files:
        try:
            with file.path.open("rb") as stream:
                while lines := stream.readlines(_MAX_FILE):
                    yield file.name, b"".join(lines)
        except OSError:
            unreadable += 1
    if unreadable:
        left_out.append(f"{unreadable} files that can't be read")


def _digest(*what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _read(stored: Path) -> CorpusIndex | None:
    try:
        with stored.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return CorpusIndex.from_arrays(arrays)
    except FileNotFoundError:
        return None
    except Exception as error:  # damage shows in many ways, and the remedy is the same
        log.info("The stored index of the corpus is made anew: %s", error)
        return None


def _store(index: CorpusIndex, stored: Path, family: str) -> None:
    """Best effort: without the file the index is built again the next time. Older ones are removed."""
    arrays: dict[str, Any] = dict(index.arrays())
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=stored.parent) as folder:
            complete = Path(folder) / stored.name
            np.savez(complete, **arrays)
            complete.replace(stored)
        for other in stored.parent.glob(f"{family}-*.npz"):
            if other != stored:
                other.unlink(missing_ok=True)
    except OSError as error:
        log.warning("The index of the corpus could not be stored: %s.", error)
