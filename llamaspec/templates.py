"""Chat templates: a conversation becomes the prompt text that a model was trained on.

A template that comes inside a model file is a stranger's program. It is rendered in a child process
(`template_child.py`), in Jinja's sandbox, within limits on time, memory and output, with no environment.
Settings and helpers are those that Transformers documents for chat templates: authors write for them.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaspec.closing import Closing
from llamaspec.errors import ClosedError, TemplateError, UsageError
from llamaspec.interpreter import interpreter

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""For a model file without a template. Many chat models know this form, but it is a guess: tell the user."""

TEMPLATE_OPTIONS = frozenset(
    {
        "builtin_tools",
        "custom_tools",
        "date_string",
        "documents",
        "enable_thinking",
        "model_identity",
        "reasoning_effort",
        "thinking",
        "tools_in_user_message",
    }
)
"""Variables beside messages and tools that published templates read. Others would be ignored: refused."""

MAX_OUTPUT = 4 << 20  # characters
MAX_MEMORY = 1 << 30  # bytes

_WATCH_SECONDS = 0.05
_HINT = "Give a template of your own in the profile (chat: template), or use the prompt as it is with --raw."
_KEPT_ENVIRONMENT = (
    "SYSTEMROOT",
    "TZ",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)  # Python won't start without some
_JSON_BYTES_PER_CHARACTER = 12  # the longest escape: a surrogate pair

Message = Mapping[str, Any]


class TemplateRenderer(Closing):
    """One template, kept ready in a process of its own.

    Made before the model is loaded, its start-up (about 0.1 s) costs nothing. `template` is Jinja source,
    `bos` and `eos` the texts of those tokens. A template may write the BOS itself: don't add a second one
    when its text is tokenised. `seconds` limits each rendering.

    Safe to share between threads: renderings are done one after the other.
    """

    def __init__(self, template: str, bos: str = "", eos: str = "", *, seconds: float = 5.0) -> None:
        self._special = {"bos_token": bos, "eos_token": eos}
        self._seconds = seconds
        self._setup = {
            "template": template,
            "seconds": seconds + 1.0,
            "max_output": MAX_OUTPUT,
            "max_memory": MAX_MEMORY,
        }
        self._lock = threading.Lock()
        self._closed = False
        self._child: subprocess.Popen[bytes] | None = self._start()

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> str:
        """The prompt text of a conversation.

        `messages` and `tools` are as in OpenAI's chat API, with text content. Null or missing content is
        empty text, except beside tool calls, where templates ask for it. Arguments of tool calls are handed
        on as they are.

        Raises UsageError for an option that is not in TEMPLATE_OPTIONS, TemplateError when the template
        refuses the conversation, fails, or breaks a limit. After either the renderer can be used again.
        """
        if unknown := sorted(options.keys() - TEMPLATE_OPTIONS):
            raise UsageError(
                f"{unknown[0]!r} is not an option of chat templates.",
                f"Known: {', '.join(sorted(TEMPLATE_OPTIONS))}.",
            )
        variables = {
            **self._special,
            **options,
            "messages": [_with_content(message) for message in messages],
            "tools": list(tools) if tools else None,
            "add_generation_prompt": add_generation_prompt,
        }
        request = json.dumps(variables).encode() + b"\n"
        with self._lock:
            reply = self._ask(request)
        if "text" in reply:
            return str(reply["text"])
        line = f" (line {reply['line']} of the template)" if reply["line"] else ""
        raise TemplateError(f"The chat template failed: {reply['error']}{line}.", _HINT)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            child = subprocess.Popen(
                [
                    interpreter(),
                    "-I",
                    "-S",
                    str(Path(__file__).with_name("template_child.py")),
                    *_package_folders(),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise TemplateError(
                f"The process that renders chat templates can't be started: {error}."
            ) from error
        with contextlib.suppress(OSError):  # a child that died at once is reported by the first rendering
            _send(child, json.dumps(self._setup).encode() + b"\n")
        return child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        assert child.stdin is not None and child.stdout is not None
        with contextlib.suppress(OSError):  # closing flushes what the child never read
            child.stdin.close()
        child.stdout.close()

    def _ask(self, request: bytes) -> dict[str, Any]:
        """The child's reply. A child that did not answer properly is gone afterwards, whatever happens."""
        if self._closed:
            raise ClosedError("This template renderer is closed.")
        if self._child is None or self._child.poll() is not None:
            self._stop()
            self._child = self._start()
        child = self._child
        assert child.stdout is not None
        answer = b""
        try:
            with _watched(child, self._seconds) as broken_limits, contextlib.suppress(OSError):
                _send(child, request)
                answer = child.stdout.readline(MAX_OUTPUT * _JSON_BYTES_PER_CHARACTER)
        except BaseException:
            self._stop()
            raise
        if answer.endswith(b"\n") and not broken_limits:
            reply: dict[str, Any] = json.loads(answer)
            return reply
        self._stop()
        reason = broken_limits[0] if broken_limits else "it ended the process that renders it"
        raise TemplateError(f"The chat template was stopped: {reason}.", _HINT)


def _with_content(message: Message) -> dict[str, Any]:
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        content = ""
    return {**message, "content": content}


def _send(child: subprocess.Popen[bytes], line: bytes) -> None:
    assert child.stdin is not None
    child.stdin.write(line)
    child.stdin.flush()


@contextlib.contextmanager
def _watched(child: subprocess.Popen[bytes], seconds: float) -> Iterator[list[str]]:
    """Kill the child when it takes too long or too much memory; the list then says which.

    The child limits its own memory where the system has a way; this holds everywhere.
    """
    broken: list[str] = []
    done = threading.Event()
    deadline = time.monotonic() + seconds

    def watch() -> None:
        while not done.wait(_WATCH_SECONDS):
            if time.monotonic() > deadline:
                broken.append(f"it took more than {seconds:g} s")
            elif _resident_bytes(child.pid) > MAX_MEMORY:
                broken.append("it needs too much memory")
            if broken:
                child.kill()
                return

    watcher = threading.Thread(target=watch, name="template-watch", daemon=True)
    watcher.start()
    try:
        yield broken
    finally:
        done.set()
        watcher.join()


def _resident_bytes(process: int) -> int:
    import psutil

    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0


def _package_folders() -> list[str]:
    """Where Jinja is installed: the isolated interpreter does not look there by itself."""
    specs = [importlib.util.find_spec(package) for package in ("jinja2", "markupsafe")]
    return list(dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin))
