"""Wheels from the user's package index, through their own pip and its configuration."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from llamaspec.errors import DiskFullError, ModelFetchError, ModelNotFoundError, NetworkError
from llamaspec.hub.sources import WheelPart

_PARALLEL = 4
_POLL_SECONDS = 0.1
_UNREACHABLE = (
    "retrying (",
    "timed out",
    "connection",
    "proxyerror",
    "sslerror",
    "could not fetch url",
    "name resolution",
)


@dataclass(frozen=True, slots=True)
class _Patience:
    timeout: int
    retries: int


# An index that does not answer costs seconds. One that has answered may be slow with a large file.
_FIRST = _Patience(timeout=10, retries=1)
_REACHABLE = _Patience(timeout=60, retries=3)
_PROBE = _Patience(timeout=4, retries=1)  # pip needs to see a retry to tell silence from absence
_PROBE_SECONDS = 14.0  # names that don't resolve may take longer than pip's time-out

_SILENT = "The package index does not answer."
_CHECK_NETWORK = "Check the network and pip's settings."


def wheel_path(part: WheelPart, folder: Path) -> Path:
    return folder / f"{part.package}-{part.version}.whl"


def download_wheels(parts: Iterable[WheelPart], folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Put the wheel of each part at its `wheel_path`: there when it is complete, and not before.

    Wheels that are there already are kept. `on_bytes` is told how many bytes `folder` has of them by now.

    Raises:
        ModelNotFoundError, NetworkError, DiskFullError, ModelFetchError: what pip said; the wheels that did
            arrive stay.
    """
    _require_pip()
    _remove_leftovers(folder)
    wheels = {wheel_path(part, folder): part for part in parts}
    try:
        _download_missing(wheels, _FIRST, on_bytes)
    except NetworkError as error:
        if "timed out while reading" not in error.message and not any(path.exists() for path in wheels):
            raise
        _download_missing(wheels, _REACHABLE, on_bytes)


def ask_index(package: str) -> None:
    """Whether the index answers and has a package: takes a second or two, and brings nothing.

    Raises ModelFetchError with its kinds, as `download_wheels`.
    """
    _require_pip()
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "pip", "index", "versions", package, "--no-input"),
                *("--no-cache-dir", "--disable-pip-version-check", "--ignore-requires-python"),
                *(f"--timeout={_PROBE.timeout}", f"--retries={_PROBE.retries}"),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NetworkError(_SILENT, _CHECK_NETWORK) from None
    if done.returncode != 0:
        raise _meaning(package, done.stderr.decode("utf-8", "replace"))


def _require_pip() -> None:
    if importlib.util.find_spec("pip") is None:
        raise ModelFetchError(
            "This Python environment has no pip to fetch from the package index with.",
            f"Run: {sys.executable} -m ensurepip",
        )


def _remove_leftovers(folder: Path) -> None:
    """What a killed process had no time to remove; the caller holds the lock."""
    for leftover in folder.glob("pip-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _download_missing(
    wheels: dict[Path, WheelPart], patience: _Patience, on_bytes: Callable[[int], None]
) -> None:
    waiting = deque((path, part) for path, part in wheels.items() if not path.exists())
    running: list[_Download] = []
    failures: list[ModelFetchError] = []
    try:
        while waiting or running:
            while waiting and len(running) < _PARALLEL:
                running.append(_Download(*waiting.popleft(), patience))
            time.sleep(_POLL_SECONDS)
            for download in [download for download in running if download.ended]:
                running.remove(download)
                if failure := download.settle():
                    failures.append(failure)
                    # Downloads that run may still end well, and count for the next pull.
                    waiting.clear()
            arrived = sum(path.stat().st_size for path in wheels if path.exists())
            on_bytes(arrived + sum(download.bytes_so_far for download in running))
    finally:
        for download in running:
            download.cancel()
    if failures:
        raise failures[0]


class _Download:
    """One pip process with a folder of its own, where it also keeps its temporary files: they can be large,
    and their growth is the progress.
    """

    def __init__(self, target: Path, part: WheelPart, patience: _Patience) -> None:
        self._target = target
        self._requirement = f"{part.package}=={part.version}"
        self._folder = Path(tempfile.mkdtemp(prefix="pip-", dir=target.parent))
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    # -P: a pip.py in the current folder is not pip.
                    *(sys.executable, "-P", "-m", "pip", "download", self._requirement),
                    *("--no-deps", "--only-binary=:all:", "--ignore-requires-python"),
                    *("--no-cache-dir", "--no-input", "--disable-pip-version-check"),
                    *("--progress-bar=off", f"--timeout={patience.timeout}", f"--retries={patience.retries}"),
                    *("--dest", str(self._folder / "done")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {name: str(self._folder) for name in ("TMPDIR", "TEMP", "TMP")}
                | {"PYTHONIOENCODING": "utf-8"},
            )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def bytes_so_far(self) -> int:
        # pip copies from its temporary folder at the end: the larger of the two is what there is.
        with contextlib.suppress(OSError):  # pip removes its folders meanwhile
            return max((_size_of(path) for path in self._folder.rglob("*.whl")), default=0)
        return 0

    def settle(self) -> ModelFetchError | None:
        """Move the wheel to its place, or say what went wrong."""
        try:
            if self._process.returncode == 0:
                [wheel] = (self._folder / "done").glob("*.whl")
                wheel.replace(self._target)
                return None
            log = (self._folder / "log").read_text("utf-8", "replace")
            return _meaning(self._requirement, log)
        finally:
            self._clean()

    def cancel(self) -> None:
        self._process.kill()
        self._process.wait()
        self._clean()

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _size_of(path: Path) -> int:
    with contextlib.suppress(OSError):  # moved meanwhile
        return path.stat().st_size
    return 0


def _meaning(requirement: str, log: str) -> ModelFetchError:
    lower = log.lower()
    if "no space left" in lower or "errno 28" in lower:
        return DiskFullError("The disk is full.", "Make room, then pull again.")
    if "read timed out" in lower:
        return NetworkError(f"The package index timed out while reading {requirement}.", "Try again later.")
    if any(sign in lower for sign in _UNREACHABLE):
        return NetworkError(_SILENT, _CHECK_NETWORK)
    if "no matching distribution" in lower:
        return ModelNotFoundError(
            f"The package index has no {requirement}.", "`pip config list` shows which index is asked."
        )
    said = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    reason = said[-1] if said else (log.strip().splitlines() or ["no reason given"])[-1]
    return ModelFetchError(f"pip could not download {requirement}: {reason}")
