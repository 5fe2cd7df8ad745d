"""Our own folder in the user's cache: where things lie, room on the disk, and which files were checked.

    models/<first 16 digits of the SHA-256>/<file name>            a complete, checked file
    models/<first 16 digits of the SHA-256>/<file name>.partial/   what an unfinished pull has so far
    locks/, verified/                                              one small file each

`LLAMASPEC_CACHE` puts it elsewhere.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from llamaspec.errors import DiskFullError, ModelFetchError
from llamaspec.hub.models import Progress, tracked

_CHUNK = 1 << 20
_PARTIAL = ".partial"
_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def cache_root() -> Path:
    if folder := os.environ.get("LLAMASPEC_CACHE"):
        return Path(folder).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("llamaspec", appauthor=False)


def models_folder() -> Path:
    return cache_root() / "models"


def model_path(sha256: str, name: str) -> Path:
    return models_folder() / sha256[:16] / name


def partial_folder(path: Path) -> Path:
    """Where an unfinished pull of the model at `path` keeps what it has."""
    return path.with_name(path.name + _PARTIAL)


def complete_path(partial: Path) -> Path | None:
    """The reverse of `partial_folder`; None for a path that is not one."""
    return partial.with_name(partial.name.removesuffix(_PARTIAL)) if partial.name.endswith(_PARTIAL) else None


def lock_path(path: Path) -> Path:
    """The lock to hold while the model at `path` is written or removed; its folder is made."""
    locks = cache_root() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    return locks / f"{path.parent.name}.lock"


def require_room(folder: Path, needed: int) -> None:
    """Raises DiskFullError unless `needed` bytes are free where `folder` is, or will be."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DiskFullError(
            f"{needed / 1e9:.1f} GB are needed in {existing} and {free / 1e9:.1f} GB are free.",
            "Make room there, or move the cache with LLAMASPEC_CACHE and HF_HOME.",
        )


def storage_error(error: OSError) -> ModelFetchError:
    """What an error of the file system means for a pull."""
    if error.errno in _NO_ROOM:
        return DiskFullError("The disk is full.", "Make room, then pull again.")
    return ModelFetchError(f"The file could not be stored: {error}.")


def is_file_with(path: Path, sha256: str, progress: Progress) -> bool:
    """Whether there is a file with this SHA-256."""
    return path.is_file() and sha256_of(path, progress) == sha256


def sha256_of(path: Path, progress: Progress) -> str:
    """Read once, then remembered until size or time change. Raises OSError."""
    return remembered_sha256(path) or _read_and_remember(path, progress)


def remember_sha256(path: Path, sha256: str) -> None:
    """Best effort: without the record the file is read again the next time."""
    record = _record(path)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=record.parent, delete=False) as stream:
            stream.write(f"{_stamp(path)} {sha256}")
        Path(stream.name).replace(record)
    except OSError:
        return


def remembered_sha256(path: Path) -> str | None:
    try:
        stamp, _, sha256 = _record(path).read_text().rpartition(" ")
        return sha256 if stamp == _stamp(path) else None
    except (OSError, UnicodeDecodeError):
        return None


def forget_sha256(path: Path) -> None:
    _record(path).unlink(missing_ok=True)


def _read_and_remember(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    with tracked(progress, f"Checking {path.name}", path.stat().st_size), path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            progress.advance(len(chunk))
    remember_sha256(path, digest.hexdigest())
    return digest.hexdigest()


def _record(path: Path) -> Path:
    key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return cache_root() / "verified" / key[:32]


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
