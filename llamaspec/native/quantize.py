"""Store a model in another type: BF16, Q8_0, Q4_K_M, …"""

import contextlib
import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from llamaspec.errors import DiskFullError, ModelFileError, UsageError
from llamaspec.gguf.checks import check_model
from llamaspec.gguf.header import read_header
from llamaspec.gguf.shards import read_model
from llamaspec.native import api
from llamaspec.native.api import lib

_PREFIXES = ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_")
_NO_ROOM_BYTES = 32 << 20  # less than one tensor: a write that fails beside so little failed for want of room

TYPES: dict[str, int] = {
    constant.removeprefix(prefix): int(getattr(lib, constant))
    for prefix in _PREFIXES
    for constant in dir(lib)
    if constant.startswith(prefix)
}
"""llama.cpp's file types by name; the MOSTLY of its own names is left out."""


def quantize(source: Path, target: Path, type: str, threads: int | None = None) -> None:
    """Write the model `source` to `target` with weights of `type`, one of `TYPES` in any case.

    Weights that are quantised already are quantised again, which loses more than starting from the
    original would. A split model becomes one file. `target` appears only when it is complete, and an
    older file there is replaced. `threads`: as many as the machine has if not given.

    Errors: UsageError for an unknown type, FileMissingError, NotGGUFError, CorruptGGUFError or
    UnsupportedModelError for the source, DiskFullError, and ModelFileError for anything else.
    """
    ftype = TYPES.get(type.upper())
    if ftype is None:
        raise UsageError(f"{type!r} is not a type of weights.", f"Known: {', '.join(sorted(TYPES))}.")
    check_model(read_model(source))
    api.start()
    api.forget_complaints()
    params = lib.llama_model_quantize_default_params()
    params.ftype = ftype
    params.nthread = threads or 0
    params.allow_requantize = True
    with _replacing(target) as partial:
        if lib.llama_model_quantize(os.fsencode(source), os.fsencode(partial), ctypes.byref(params)) != 0:
            raise _failure(source, target, type)
        try:
            read_header(partial)
        except ModelFileError:
            # llama.cpp reports success for a file whose end it could not write.
            raise _failure(source, target, type) from None


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A name beside `target` to write to. It takes the place of `target` at the end, or is removed."""
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()  # llama.cpp would not say why it can't be written
        yield partial
        partial.replace(target)
    except OSError as error:
        raise ModelFileError(f"{target} can't be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _failure(source: Path, target: Path, type: str) -> ModelFileError | DiskFullError:
    free = shutil.disk_usage(target.parent).free
    if free < _NO_ROOM_BYTES:
        return DiskFullError(f"There is no room for {target}.", "Make room there, or write it elsewhere.")
    return ModelFileError(
        f"llama.cpp can't write {source.name} as {type.upper()}: {api.last_complaint()}",
        "Types of about two bits (IQ1, IQ2, Q2_K_S) need statistics that this conversion does not have.",
    )
