"""One measured run of each program, as a `Run`: what was started, and what it said about itself.

All of them report how long they generated, loading and prompt left out, but don't count alike. Here a
speed is tokens per second of which each took a part of a decode within the measured time:

- llamaspec: `predicted_seconds` begins when the prompt has been read, whose logits give the first token
  for nothing. So that one does not count. The draft model reads the prompt within this time.
- llama-server: `predicted_ms` begins likewise, and its own `predicted_per_second` leaves out the first
  token too. The draft model reads the prompt before.
- llama-speculative-simple: "decoded N tokens" includes evaluating the prompt's last token: all N count.
  The draft model reads the prompt before. It may go past the limit by the tokens of its last draft.
- llama-bench: plain decoding from an empty context; it does not sample, and has no text.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaspec.bench.local_server import LocalServer, clean_environment


class RunFailed(Exception):
    """A program that ended badly, or said something that is not understood."""


@dataclass(frozen=True, slots=True)
class Run:
    """`timed_tokens` came out of decodes within `seconds`; `drafted` and `text` are None where unknown.

    `prompt_tokens` is None where there was no prompt. `tokens` counts all that were generated.
    """

    timed_tokens: int
    seconds: float
    tokens: int
    prompt_tokens: int | None = None
    prompt_seconds: float | None = None
    drafted: int | None = None
    accepted: int | None = None
    text: str | None = None

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.timed_tokens / self.seconds if self.seconds else 0.0


def parse_llamaspec(output: str) -> Run:
    """The object that `llamaspec run --json` prints."""
    answer = json.loads(output)
    stats = answer["stats"]
    return Run(
        timed_tokens=stats["predicted_tokens"] - 1,
        seconds=stats["predicted_seconds"],
        tokens=stats["predicted_tokens"],
        prompt_tokens=stats["prompt_tokens"],
        prompt_seconds=stats["prompt_seconds"],
        drafted=stats["draft_n"],
        accepted=stats["draft_n_accepted"],
        text=answer["text"],
    )


def parse_speculative_simple(output: str, log: str, prompt: str) -> Run:
    """Text on standard output, behind the prompt; numbers in the log."""
    encoded = _numbers(r"encoded\s+(\d+) tokens in\s+([\d.]+) seconds", log)
    decoded = _numbers(r"decoded\s+(\d+) tokens in\s+([\d.]+) seconds", log)
    _, found, text = output.partition(prompt)
    return Run(
        timed_tokens=int(decoded[0]),
        seconds=decoded[1],
        tokens=int(decoded[0]),
        prompt_tokens=int(encoded[0]),
        prompt_seconds=encoded[1],
        drafted=int(_numbers(r"n_drafted\s*=\s*(\d+)", log)[0]),
        accepted=int(_numbers(r"n_accept\s*=\s*(\d+)", log)[0]),
        text=text if found else None,
    )


def parse_server(output: str) -> Run:
    """The answer of llama-server's `/completion`. It leaves the drafts out where there were none."""
    answer = json.loads(output)
    timings = answer["timings"]
    return Run(
        timed_tokens=timings["predicted_n"] - 1,
        seconds=timings["predicted_ms"] / 1000,
        tokens=timings["predicted_n"],
        prompt_tokens=timings["prompt_n"],
        prompt_seconds=timings["prompt_ms"] / 1000,
        drafted=timings.get("draft_n", 0),
        accepted=timings.get("draft_n_accepted", 0),
        text=answer["content"],
    )


def parse_bench(output: str) -> Run:
    """The one test of `llama-bench -o json`."""
    (test,) = json.loads(output)
    return Run(timed_tokens=test["n_gen"], seconds=test["avg_ns"] / 1e9, tokens=test["n_gen"])


def _numbers(pattern: str, log: str) -> tuple[float, ...]:
    found = re.search(pattern, log)
    if found is None:
        raise RunFailed(f"There is nothing like {pattern!r} in the log:\n{_end(log)}")
    return tuple(float(number) for number in found.groups())


def run_program(command: Sequence[str]) -> tuple[str, str]:
    """Standard output and standard error of a program that has to end well."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=clean_environment(),
        check=False,
    )
    if done.returncode != 0:
        raise RunFailed(f"{Path(command[0]).name} ended with {done.returncode}:\n{_end(done.stderr)}")
    return done.stdout, done.stderr


@contextmanager
def serving(command: Sequence[str]) -> Iterator[Callable[[Mapping[str, Any]], str]]:
    """Start a llama-server, loaded when the block begins and ended after it; what posts to `/completion`."""
    with LocalServer("llama-server", command, clean_environment()) as server:
        yield lambda request: server.post("/completion", request).decode("utf-8", "replace")


def _end(log: str) -> str:
    return "\n".join(log.splitlines()[-15:])
