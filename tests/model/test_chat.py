"""`llamaspec chat` at a terminal, a pseudo one, with a small real model."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals to drive"),
]

ENTER, CTRL_C, CTRL_D = "\r", "\x03", "\x04"
PATIENCE = 300.0  # seconds; never waited for unless something is wrong
PROMPT = "> "
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
_BAR_IS_GONE = r"\x1b\[\?25h"


class Terminal:
    """A program at a terminal of 100 × 40: what is typed, and what there is to see so far."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.program = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, "-m", "llamaspec", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | environment | {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(theirs)
        self.raw = ""
        self._seen = 0
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match behind the one before."""
        wanted = re.compile(pattern)

        def there() -> re.Match[str] | bool:
            return wanted.search(self.raw, self._seen) or not self._reader.is_alive()

        with self._more:
            found = self._more.wait_for(there, PATIENCE)
            assert isinstance(found, re.Match), f"no {pattern!r} at the end of {self.raw[-2000:]!r}"
            self._seen = found.end()
        return found

    def leave(self) -> int:
        self.type(CTRL_D)
        return self.program.wait(PATIENCE)

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        self._reader.join()
        os.close(self._ours)

    def _read(self) -> None:
        import codecs

        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            try:
                data = os.read(self._ours, 65_536)
            except OSError:  # Linux says so when the other end is closed
                data = b""
            with self._more:
                self.raw += decoder.decode(data)
                self._more.notify_all()
            if not data:
                return


@pytest.fixture
def start(small_model: Path, tmp_path: Path) -> Iterator[object]:
    opened: list[Terminal] = []

    def start(*flags: str) -> Terminal:
        place = {"LLAMASPEC_CONFIG": str(tmp_path / "config")}
        opened.append(Terminal("chat", "-m", str(small_model), *flags, environment=place))
        opened[-1].wait_for("Ctrl-D or /exit leaves")
        opened[-1].wait_for(PROMPT)
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def figures(terminal: Terminal) -> tuple[float, int, int]:
    """Of the next line of figures: seconds to the first token, tokens read, tokens known."""
    line = terminal.wait_for(r"first token ([\d.]+) s \(([\d,]+) tokens read(?:, ([\d,]+) known)?\)")
    seconds, *counts = (float((group or "0").replace(",", "")) for group in line.groups())
    terminal.wait_for(PROMPT)
    return seconds, int(counts[0]), int(counts[1])


def test_a_second_turn_reads_only_what_is_new(start, tmp_path: Path) -> None:
    words = "".join(f"Item {number} is in room {number * 7 % 90}. " for number in range(180))
    (tmp_path / "list.txt").write_text(words, encoding="utf-8")
    chat = start("-n", "24", "--temp", "0", "--ignore-eos")
    chat.type(f"/read {tmp_path / 'list.txt'}{ENTER}")
    chat.wait_for("characters, which go with the next message")
    chat.wait_for(PROMPT)
    chat.type(f"Where is item 5?{ENTER}")
    chat.wait_for("reading [0-9,]+ tokens…")
    cold, read, known = figures(chat)
    assert read >= 2000
    assert known == 0
    chat.type(f"And item 7?{ENTER}")
    warm, new, known = figures(chat)
    assert known >= read + 23  # the answer's tokens as well, but for the last
    assert new < 40
    assert chat.leave() == 0
    print(f"first token: {cold:.2f} s for {read} tokens, {warm:.2f} s in the next turn")


def test_control_c_stops_the_answer_and_not_the_program(start, tmp_path: Path) -> None:
    chat = start("--ignore-eos", "--temp", "0")
    chat.type(CTRL_C)
    chat.wait_for("Ctrl-D or /exit leaves")
    chat.type(f"Tell me a long story.{ENTER}")
    chat.wait_for("reading")
    chat.wait_for(_BAR_IS_GONE)
    chat.wait_for("[A-Za-z]{3}")
    chat.type(CTRL_C)
    chat.wait_for(r"stopped · [\d,]+ tokens")
    chat.wait_for(PROMPT)
    chat.type(f"/nonsense{ENTER}")
    chat.wait_for("There is no command /nonsense")
    chat.wait_for(PROMPT)
    chat.type(f"/set n_predict 8{ENTER}")
    chat.wait_for(r"n_predict\b.* 8")
    chat.type(f"Hello{ENTER}")
    _, _, known = figures(chat)
    assert known > 0
    assert chat.leave() == 0
    [file] = (tmp_path / "config" / "conversations").glob("*.json")
    turns = json.loads(file.read_text(encoding="utf-8"))["turns"]
    assert [turn["stopped"] for turn in turns] == [True, False]
    assert turns[0]["answer"]
    assert "Hello" in (tmp_path / "config" / "chat_history").read_text(encoding="utf-8")
