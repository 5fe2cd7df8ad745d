"""What `llamaspec serve` writes to standard error: where it listens, and a line for every request."""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from llamaspec.stats import Stats


class Ended(Protocol):
    """A request that has ended, at `at` seconds since the epoch."""

    @property
    def id(self) -> int: ...

    @property
    def at(self) -> float: ...

    @property
    def kind(self) -> str: ...

    @property
    def mode(self) -> str: ...

    @property
    def finish_reason(self) -> str: ...

    @property
    def stats(self) -> Stats: ...

    def as_dict(self) -> dict[str, Any]: ...


class RequestLog:
    """Lines for people, or JSON lines. No prompt and no answer is in them."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self._as_json = as_json
        self._quiet = quiet

    def ready(
        self, url: str, *, has_keys: bool, settings: Mapping[str, Any], models: Mapping[str, Any]
    ) -> None:
        """Told once, when the models are loaded."""
        if self._quiet:
            return
        if self._as_json:
            told = {"event": "ready", "url": url, "key": has_keys, "settings": settings, "models": models}
            self._write(json.dumps(told, ensure_ascii=False))
            return
        files = [f"{role} {model['file']}" for role, model in models.items()]
        self._write(f"{' + '.join(files)}")
        runtime, speculation = settings["runtime"], settings["speculation"]
        names = ", ".join(speculation["drafters"])
        self._write(f"speculation: {speculation['mode']}{f' ({names})' if names else ''}; {_layers(runtime)}")
        self._write(f"context: {runtime['ctx_size']} tokens for all requests together")
        self._write(f"listening on {url} ({'API key needed' if has_keys else 'no API key'})")

    def refused(self, method: str, path: str, status: int) -> None:
        """Told of every request that was answered with an error."""
        if self._quiet:
            return
        shown = path[:200].encode("ascii", "backslashreplace").decode()
        if self._as_json:
            told = {"event": "refusal", "at": time.time(), "method": method, "path": shown, "status": status}
            self._write(json.dumps(told))
        else:
            self._write(f"{time.strftime('%H:%M:%S')} {method} {shown}: {status}")

    def ended(self, request: Ended) -> None:
        """From any thread."""
        if self._quiet:
            return
        if self._as_json:
            self._write(json.dumps({"event": "request", **request.as_dict()}))
            return
        stats = request.stats
        told = [
            time.strftime("%H:%M:%S", time.localtime(request.at)),
            f"#{request.id} {request.kind} {request.finish_reason}:",
            f"{stats.prompt_tokens} + {stats.predicted_tokens} tokens",
        ]
        if stats.cached_tokens:
            told.append(f"({stats.cached_tokens} cached)")
        if (speed := stats.tokens_per_second) is not None:
            told.append(f"at {speed:.1f}/s")
        if stats.draft_n:
            told.append(f"· {stats.draft_n_accepted} of {stats.draft_n} drafted tokens accepted")
            if (speedup := stats.estimated_speedup) is not None:
                told.append(f"· {speedup:.2f} x plain, estimated")
        self._write(" ".join(told))

    @staticmethod
    def _write(line: str) -> None:
        if sys.stderr is not None:
            with suppress(OSError, ValueError):  # who read it has gone; requests are answered all the same
                print(line, file=sys.stderr, flush=True)


def _layers(runtime: Mapping[str, Any]) -> str:
    if not runtime["devices"]:
        return f"on the CPU with {runtime['threads']} threads"
    layers = [f"{runtime['gpu_layers']} main"]
    if runtime["gpu_layers_draft"] is not None:
        layers.append(f"{runtime['gpu_layers_draft']} draft")
    return f"layers on {', '.join(runtime['devices'])}: {' and '.join(layers)}"
