"""Store a model in another type: BF16, Q8_0, Q4_K_M, …

llama.cpp can't be told to break a conversion off, and loses a Ctrl-C that comes in the middle of one. So it
runs in a process of its own, which can be ended at any time.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from llamaspec.errors import DiskFullError, ModelFileError, UsageError
from llamaspec.gguf.checks import check_model
from llamaspec.gguf.header import read_header
from llamaspec.gguf.shards import read_model
from llamaspec.native import api
from llamaspec.native.api import lib
from llamaspec.replacing import replacing

_PREFIXES = ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_")
_NO_ROOM_BYTES = 32 << 20  # less than one tensor: a write that fails beside so little failed for want of room
_LOOK_SECONDS = 0.05
_MAX_REASON_BYTES = 1024  # fits the pipe: the child never waits to be heard

TYPES: dict[str, int] = {
    constant.removeprefix(prefix): int(getattr(lib, constant))
    for prefix in _PREFIXES
    for constant in dir(lib)
    if constant.startswith(prefix)
}
"""llama.cpp's file types by name; the MOSTLY of its own names is left out."""

_USUAL = ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16", "F16")


def type_name(text: str) -> str:
    """The type that a person named, in any case, as `TYPES` has it. Raises UsageError if there is none."""
    if (name := text.upper()) in TYPES:
        return name
    others = ", ".join(sorted(TYPES.keys() - set(_USUAL)))
    raise UsageError(
        f"{text!r} is not a type of weights.",
        f"The usual ones: {', '.join(_USUAL)}. There are also {others}.",
    )


def quantize(
    source: Path,
    target: Path,
    type: str,
    threads: int | None = None,
    on_bytes: Callable[[int], None] = lambda _count: None,
) -> None:
    """Write the model `source` to `target` with weights of `type`, one of `TYPES` in any case.

    Weights that are quantised already are quantised again, which loses more than starting from the
    original would. A split model becomes one file. `target` appears only when it is complete, and an
    older file there is replaced. `threads`: as many as the machine has if not given. `on_bytes` is told
    every now and then how many more bytes are written; what it raises, as KeyboardInterrupt, ends the
    conversion and leaves nothing behind.

    Errors: UsageError for an unknown type, FileMissingError, NotGGUFError, CorruptGGUFError or
    UnsupportedModelError for the source, DiskFullError, and ModelFileError for anything else.
    """
    type = type_name(type)
    check_model(read_model(source))
    with _replacing(target) as partial:
        if (reason := _convert(source, partial, type, threads or 0, on_bytes)) is not None:
            raise _failure(source, target, type, reason)
        try:
            read_header(partial)
        except ModelFileError as error:
            # llama.cpp reports success for a file whose end it could not write.
            raise _failure(source, target, type, error.message) from None


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as partial:
            partial.touch()  # llama.cpp would not say why it can't be written
            yield partial
    except OSError as error:
        raise ModelFileError(f"{target} can't be written: {error.strerror or error}.") from error


def _failure(source: Path, target: Path, type: str, reason: str) -> ModelFileError | DiskFullError:
    free = shutil.disk_usage(target.parent).free
    if free < _NO_ROOM_BYTES:
        return DiskFullError(f"There is no room for {target}.", "Make room there, or write it elsewhere.")
    return ModelFileError(
        f"llama.cpp can't write {source.name} as {type}: {reason}",
        "Types of about two bits (IQ1, IQ2, Q2_K_S) need statistics that this conversion does not have.",
    )


def _convert(
    source: Path, partial: Path, type: str, threads: int, on_bytes: Callable[[int], None]
) -> str | None:
    """Let a child process write `partial`; what went wrong, if anything did. The child is gone afterwards."""
    # Whatever put this package on the path does so for the child.
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _child; _child()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(partial), type, str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    ) as child:
        assert child.stdout is not None
        try:
            written = 0
            while child.poll() is None:
                time.sleep(_LOOK_SECONDS)  # which Ctrl-C ends on every system, unlike a wait for the child
                written, before = partial.stat().st_size, written
                on_bytes(written - before)
        finally:
            child.kill()
            # Ends when nobody holds the pipe any more: the file is closed then, also where a launcher
            # stands between us and the interpreter.
            reason = child.stdout.read().decode("utf-8", "replace")
    return None if child.returncode == 0 else reason or f"it ended with code {child.returncode}"


def _child() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_end_with_parent, daemon=True).start()
    source, partial, type, threads = sys.argv[1:]
    api.start()
    params = lib.llama_model_quantize_default_params()
    params.ftype = TYPES[type]
    params.nthread = int(threads)
    params.allow_requantize = True
    if lib.llama_model_quantize(os.fsencode(source), os.fsencode(partial), ctypes.byref(params)) != 0:
        sys.stdout.buffer.write(api.last_complaint().encode()[:_MAX_REASON_BYTES])
        sys.exit(1)


def _end_with_parent() -> None:
    """Its end of the pipe closes with it, however it ends."""
    os.read(0, 1)  # not through sys.stdin, whose lock the interpreter takes when it ends
    os._exit(1)
