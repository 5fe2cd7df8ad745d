"""Keys at the prompt, with prompt_toolkit's own pipe in place of a keyboard; and lines from a pipe."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import PipeInput as Keyboard
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from llamaspec.chat.commands import END_OF_BLOCK, FORMS
from llamaspec.console.chat_input import Commands, PipeInput, TerminalInput
from llamaspec.errors import UsageError

ENTER, ALT_ENTER, CTRL_C, CTRL_D, UP = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A"
PASTE = "\x1b[200~{}\x1b[201~"


@pytest.fixture
def keyboard() -> Iterator[Keyboard]:
    with create_pipe_input() as pipe:
        yield pipe


def terminal(keyboard: Keyboard, **more: object) -> TerminalInput:
    return TerminalInput({"help": "what"}, {}, END_OF_BLOCK, input=keyboard, output=DummyOutput(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("hello" + ENTER, "hello"),
        ("one" + ALT_ENTER + "two" + ENTER, "one\ntwo"),
        (PASTE.format("a\n  b\n/help") + ENTER, "a\n  b\n/help"),
        ("wrong" + CTRL_C + "right" + ENTER, "right"),
        (CTRL_D, None),
    ],
)
def test_keys(keyboard: Keyboard, keys: str, text: str | None) -> None:
    keyboard.send_text(keys)
    assert terminal(keyboard).read() == text


def test_a_block_ends_by_its_mark_or_alt_enter(keyboard: Keyboard) -> None:
    reader = terminal(keyboard)
    keyboard.send_text(f"/not a command{ENTER}{ENTER}more{ENTER}{END_OF_BLOCK}{ENTER}")
    assert reader.read_block() == "/not a command\n\nmore"
    keyboard.send_text(f"a{ENTER}b{ALT_ENTER}")
    assert reader.read_block() == "a\nb"
    keyboard.send_text(f"a{ENTER}b{CTRL_C}")
    assert reader.read_block() is None
    keyboard.send_text(f"a{ENTER}")
    assert reader.read() == "a"


def test_control_c_where_nothing_is_written(keyboard: Keyboard) -> None:
    told: list[str] = []
    keyboard.send_text(CTRL_C + "x" + CTRL_C + CTRL_C + "y" + ENTER)
    assert terminal(keyboard, on_interrupt=lambda: told.append("how to leave")).read() == "y"
    assert told == ["how to leave"] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="keys are characters there")
def test_bytes_that_are_no_text(keyboard: Keyboard, tmp_path: Path) -> None:
    keyboard.send_bytes(b"a\xff\r")
    assert terminal(keyboard, history=tmp_path / "history").read() == "a?"


def test_a_message_is_given_back(keyboard: Keyboard) -> None:
    keyboard.send_text(" again" + ENTER)
    assert terminal(keyboard).read("not answered") == "not answered again"


def test_history_goes_from_one_start_to_the_next(keyboard: Keyboard, tmp_path: Path) -> None:
    history = tmp_path / "history"
    keyboard.send_text("first" + ENTER)
    terminal(keyboard, history=history).read()
    keyboard.send_text(UP + "!" + ENTER)
    assert terminal(keyboard, history=history).read() == "first!"


def completions(text: str, tmp_path: Path) -> list[str]:
    names = {form.name: form.does for form in FORMS.values()}
    completer = Commands(names, {"load": lambda: ["rivers", "roads"]})
    return [one.text for one in completer.get_completions(Document(text), CompleteEvent())]


def test_completions(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    assert completions("/s", tmp_path) == ["system", "save", "spec", "set", "stats"]
    assert completions("/load ri", tmp_path) == ["rivers"]
    assert completions(f"/read {tmp_path}/no", tmp_path) == ["tes.txt"]
    for text in ("", "hello /s", "//s", "/clear x", "/s\nmore"):
        assert completions(text, tmp_path) == []


def test_lines_of_a_pipe() -> None:
    reader = PipeInput(io.BytesIO("\ufeffone\r\n\ntwo\n a\n/end\n/multi".encode()), END_OF_BLOCK)
    assert reader.read() == "one"
    assert reader.read() == ""
    assert reader.read_block() == "two\n a"
    assert reader.read() == "/multi"
    assert reader.read_block() == ""
    assert reader.read() is None
    with pytest.raises(UsageError, match="UTF-8"):
        PipeInput(io.BytesIO(b"\xff\n"), END_OF_BLOCK).read()
