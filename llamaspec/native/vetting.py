"""Grammars from strangers: tried out in a child process before the engine sees them.

llama.cpp's matcher can't be interrupted, and some grammars of a few bytes keep it busy for ever, take all
memory, or end the process. `vetting_child.py` holds the vocabulary alone and tries each grammar there.
"""

import contextlib
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import psutil

from llamaspec.closing import Closing
from llamaspec.errors import ClosedError, GrammarError
from llamaspec.interpreter import interpreter
from llamaspec.native import gbnf

MAX_MEMORY = 512 << 20  # bytes beyond what the vocabulary takes
REMEMBERED = 256
START_SECONDS = 60.0  # to load the vocabulary
WAITING_FACTOR = 5.0  # on a busy machine the CPU time that is granted takes longer

_WATCH_SECONDS = 0.02


class GrammarVetter(Closing):
    """Tells whether a grammar can be used with a model's vocabulary without harm.

    `seconds` is the CPU time that one grammar may take, `max_memory` what it may need in bytes. The child
    process starts at once and gets ready beside what the caller does; after a grammar has cost it its
    life a new one starts. Safe to share between threads: grammars are tried one after the other, and those
    that were found good are remembered.

    A grammar that passes may still become too dear for one of its texts: `NativeGrammar` then says so.
    """

    def __init__(self, model_path: Path, *, seconds: float = 2.0, max_memory: int = MAX_MEMORY) -> None:
        self._path = model_path
        self._seconds = seconds
        self._max_memory = max_memory
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._asking = threading.Lock()
        self._sharing = threading.Lock()  # of `_good`, `_child` and `_closed`; never held for long
        self._closed = False
        self._child: _Child | None = self._start()

    def check(self, grammar: str) -> None:
        """Raises GrammarError for GBNF that does not compile, or is too dear in time or memory."""
        gbnf.check(grammar)
        key = hashlib.sha256(grammar.encode()).digest()
        if self._is_known(key):
            return
        with self._asking:
            if self._is_known(key):  # it was tried while this thread waited
                return
            reply = self._ask(grammar)
        if "error" in reply:
            raise GrammarError(str(reply["error"]), str(reply["hint"]))
        with self._sharing:
            self._good[key] = None
            while len(self._good) > REMEMBERED:
                self._good.popitem(last=False)

    def close(self) -> None:
        """End the child process. A check that is under way fails. A second call does nothing."""
        with self._sharing:
            self._closed = True
            child, self._child = self._child, None
        if child is not None:
            child.end()

    def _is_known(self, key: bytes) -> bool:
        with self._sharing:
            if self._closed:
                raise ClosedError("The grammar vetter is closed.")
            if key in self._good:
                self._good.move_to_end(key)
            return key in self._good

    def _ask(self, grammar: str) -> dict[str, Any]:
        """The child's reply. A child that did not answer properly is replaced by a new one."""
        child = self._child or self._renewed()
        try:
            if not child.ready:
                child.wait_until_ready()
            return child.ask({"grammar": grammar}, self._seconds)
        except _BrokenError as broken:
            child.end()
            if child.ready:  # a child that can't even start is no use to the next grammar either
                self._renewed()
            else:
                self._forget()
            raise GrammarError(f"The grammar was not taken: {broken}.", broken.hint) from broken
        except BaseException:  # as an interrupt, with the child in the middle of an answer
            child.end()
            self._forget()
            raise

    def _renewed(self) -> "_Child":
        child = self._start()
        with self._sharing:
            if not self._closed:
                self._child = child
                return child
        child.end()
        raise ClosedError("The grammar vetter is closed.")

    def _forget(self) -> None:
        with self._sharing:
            self._child = None

    def _start(self) -> "_Child":
        setup = {
            "model": str(self._path),
            "max_memory": self._max_memory,
            "seconds": WAITING_FACTOR * self._seconds + 1.0,
        }
        return _Child(setup, self._max_memory)


class _BrokenError(Exception):
    """Why the child has not answered, as the end of a sentence."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class _Child:
    """One child process and its limits. Used by one thread at a time, except for `end`."""

    def __init__(self, setup: dict[str, Any], max_memory: int) -> None:
        self.ready = False
        self._max_memory = max_memory
        self._usual_memory = 0
        try:
            self._process = subprocess.Popen(
                [interpreter(), "-P", "-m", "llamaspec.native.vetting_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path),
                    "GGML_NO_BACKTRACE": "1",  # would start a debugger
                },
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise GrammarError(
                f"The process that tries grammars can't be started: {error.strerror}."
            ) from error
        self._replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="grammar-vetting", daemon=True).start()
        with contextlib.suppress(OSError):  # a child that died at once is reported when it is asked
            self._send(setup)

    def wait_until_ready(self) -> None:
        self._answer(START_SECONDS, START_SECONDS)
        with contextlib.suppress(psutil.Error):
            self._usual_memory = psutil.Process(self._process.pid).memory_info().rss
        self.ready = True

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        with contextlib.suppress(OSError):  # as above
            self._send(request)
        return self._answer(seconds, WAITING_FACTOR * seconds)

    def end(self) -> None:
        """Kill the process, whatever it does. A second call does nothing."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # closing flushes what the child never read
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _answer(self, cpu_seconds: float, seconds: float) -> dict[str, Any]:
        """The next reply, within limits of CPU time and of time."""
        deadline = time.monotonic() + seconds
        used_before = self._usage()[0]
        while True:
            try:
                line = self._replies.get(timeout=_WATCH_SECONDS)
            except queue.Empty:
                cpu, memory = self._usage()
                if cpu - used_before > cpu_seconds or time.monotonic() > deadline:
                    raise _BrokenError(f"it takes more than {cpu_seconds:g} s to try", _SIMPLER) from None
                if self.ready and memory - self._usual_memory > self._max_memory:
                    raise _BrokenError("it needs too much memory", _SIMPLER) from None
                continue
            if not line.endswith(b"\n"):
                what = (
                    "it ended the process that tries it"
                    if self.ready
                    else "trying grammars does not work here"
                )
                raise _BrokenError(what, _SIMPLER if self.ready else "Does the model file load?")
            reply: dict[str, Any] = json.loads(line)
            return reply

    def _usage(self) -> tuple[float, int]:
        """CPU time in seconds and resident bytes."""
        try:
            process = psutil.Process(self._process.pid)
            times = process.cpu_times()
            return times.user + times.system, int(process.memory_info().rss)
        except psutil.Error:  # it has just ended
            return 0.0, 0

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        """Runs in a thread of its own: pipes have no time limit on every system."""
        assert self._process.stdout is not None
        with self._process.stdout as replies:
            for line in replies:
                self._replies.put(line)
        self._replies.put(b"")


_SIMPLER = "Make it simpler: fewer alternatives that begin alike, fewer optional parts, less nesting."
