"""The one door to the native library: start-up, its log, and what its return codes mean."""

import ctypes
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_cpp import llama_cpp as lib

from llamaspec.errors import DecodeAborted, DecodeError, OutOfMemoryError

__all__ = [
    "binding_version",
    "check_decode",
    "forget_complaints",
    "last_complaint",
    "lib",
    "start",
    "verbose",
]

_LOG_WARN, _LOG_ERROR, _LOG_CONTINUE = 3, 4, 5  # ggml_log_level
_complaints: deque[str] = deque(maxlen=8)
_state = {"started": False, "verbose": False, "level": 0}


def _on_log(level: int, text: bytes | None, _user_data: Any) -> None:
    if level == _LOG_CONTINUE:
        level = _state["level"]
    _state["level"] = level
    line = (text or b"").decode("utf-8", "replace")
    if _state["verbose"]:
        sys.stderr.write(line)
    if level in (_LOG_WARN, _LOG_ERROR) and line.strip():
        _complaints.append(line.strip())


_log_callback = lib.llama_log_callback(_on_log)  # kept alive here: the library holds only its address


def start() -> None:
    """Start the library once and take over its log, which otherwise goes to standard error."""
    if not _state["started"]:
        lib.llama_log_set(_log_callback, ctypes.c_void_p(0))
        lib.llama_backend_init()
        _state["started"] = True


def verbose(on: bool) -> None:
    """Copy the library's log to standard error."""
    _state["verbose"] = on


@contextmanager
def held_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back while the library loads, and let it act after.

    Meanwhile Python runs in the log callback alone, and an exception raised there would be lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if asked and callable(before):
        before(signal.SIGINT, None)


def forget_complaints() -> None:
    _complaints.clear()


def last_complaint() -> str:
    """The library's last warning or error: its own reason for a failure that its result doesn't name."""
    return _complaints[-1] if _complaints else "llama.cpp gave no reason"


def binding_version() -> str:
    import llama_cpp

    return str(llama_cpp.__version__)


def check_decode(code: int, tokens: int) -> None:
    """Turn the result of `llama_decode` over `tokens` tokens into an error of its own kind."""
    if code == 0:
        return
    if code == 1:
        raise OutOfMemoryError(
            f"The KV cache has no room for {tokens} more tokens.", "Raise the context size (-c) or send less."
        )
    if code == 2:
        raise DecodeAborted("The evaluation was stopped.")
    kind = "refused the batch" if code == -1 else "failed to evaluate the batch"
    raise DecodeError(
        f"llama.cpp {kind} ({code}): {last_complaint()}", "Run again with --verbose for its log."
    )
