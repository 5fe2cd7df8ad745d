"""Questions whose answers may cost a process its life are put to a child."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaspec.interpreter import interpreter

_ILLEGAL_INSTRUCTION = 0xC000001D  # Windows' status; elsewhere it is a signal


@dataclass(frozen=True, slots=True)
class Died:
    """A child without an answer. `reason`: the last it said, or how it ended; `log`: its last lines."""

    reason: str
    log: tuple[str, ...] = ()
    illegal_instruction: bool = False


def ask(module: str, *arguments: str, seconds: float) -> dict[str, Any] | Died:
    """Run a module of this package; the JSON object in the last line that it prints."""
    try:
        done = subprocess.run(
            [interpreter(), "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path),
                "PYTHONIOENCODING": "utf-8",
                "GGML_NO_BACKTRACE": "1",  # would start a debugger
            },
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired:
        return Died(f"no answer within {seconds:.0f} seconds")
    except OSError as error:
        return Died(f"no process can be started: {error.strerror}")
    if done.returncode != 0:
        return _death(done.returncode, done.stderr.decode("utf-8", "replace"))
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return Died("it ended without an answer")
    return answer if isinstance(answer, dict) else Died("it gave another answer than was asked for")


def _death(code: int, log: str) -> Died:
    lines = tuple(line for line in log.splitlines() if line.strip())[-8:]
    if code < 0 or code >= 1 << 31:
        illegal = code in (-getattr(signal, "SIGILL", 4), _ILLEGAL_INSTRUCTION)
        return Died("an illegal instruction" if illegal else _signal_name(code), lines, illegal)
    return Died(lines[-1].strip() if lines else f"exit code {code}", lines)


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"status {code:#x}" if code > 0 else f"signal {-code}"
