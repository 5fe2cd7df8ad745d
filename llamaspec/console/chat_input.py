"""Where messages come from: a person at a terminal, or lines of a pipe."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output

from llamaspec.errors import UsageError

Choices = Callable[[], Iterable[str]]
"""What may stand behind a command, asked for when it is typed."""

_FILE_COMMAND = "read"
_PLACEHOLDER = FormattedText([("fg:ansibrightblack", "a message, or /help")])


class TerminalInput:
    """Lines with editing, history and completion.

    Enter sends, Alt-Enter begins a new line, and a pasted block stays one message. In a block it is the
    other way round.
    """

    def __init__(
        self,
        forms: Mapping[str, str],
        choices: Mapping[str, Choices],
        end_of_block: str,
        *,
        history: Path | None = None,
        on_interrupt: Callable[[], None] = lambda: None,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        """`forms`: commands and what they do; `choices`: what may stand behind them.

        `history`: the file that lines are kept in, which is there. `on_interrupt` is called at Ctrl-C where
        there is nothing to drop.
        """
        self._end_of_block = end_of_block
        self._on_interrupt = on_interrupt
        self._in_block = False
        kept: History = InMemoryHistory() if history is None else _Typed(str(history))
        self._session: PromptSession[str] = PromptSession(
            history=kept,
            completer=Commands(forms, choices),
            complete_while_typing=True,
            multiline=True,
            key_bindings=self._keys(),
            prompt_continuation="  ",
            input=input,
            output=output or create_output(always_prefer_tty=True),
        )

    def read(self, start: str = "") -> str | None:
        """The next message or command, from `start` on; None at Ctrl-D."""
        return self._ask("> ", start)

    def read_block(self) -> str | None:
        """Lines up to one that says `end_of_block`; None where Ctrl-C or Ctrl-D drop them."""
        self._in_block = True
        try:
            return self._ask(". ", "")
        finally:
            self._in_block = False

    def _ask(self, sign: str, start: str) -> str | None:
        try:
            text = self._session.prompt(sign, default=start, placeholder=None if start else _PLACEHOLDER)
        except (KeyboardInterrupt, EOFError):
            return None
        return _clean(text)

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.complete_state is not None and buffer.complete_state.current_completion is not None:
                buffer.complete_state = None
            elif not self._in_block:
                buffer.validate_and_handle()
            elif buffer.document.current_line.strip() == self._end_of_block:
                buffer.text = "\n".join(buffer.text.split("\n")[:-1])
                buffer.validate_and_handle()
            else:
                buffer.newline(copy_margin=False)

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            if self._in_block:
                event.app.exit(exception=KeyboardInterrupt, style="class:aborting")
            elif event.current_buffer.text:
                event.current_buffer.reset()
            else:
                run_in_terminal(self._on_interrupt)

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            if self._in_block:
                event.current_buffer.validate_and_handle()
            else:
                event.current_buffer.newline(copy_margin=False)

        return keys


class _Typed(FileHistory):
    """Lines in a file, in which what is no text has no place, and whose disk may be full."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(_clean(string))


def _clean(text: str) -> str:
    """Without the halves of characters that a terminal's bytes may leave."""
    return text.encode("utf-8", "replace").decode()


class PipeInput:
    """Each line is a message or a command."""

    def __init__(self, stream: BinaryIO, end_of_block: str) -> None:
        self._stream = stream
        self._end_of_block = end_of_block

    def read(self, start: str = "") -> str | None:
        """The next line; None at the end. Raises UsageError for what is no text."""
        line = self._stream.readline()
        if not line:
            return None
        try:
            return line.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            raise UsageError("Standard input is not UTF-8 text.") from None

    def read_block(self) -> str | None:
        """Lines up to one that says `end_of_block`, or to the end of all."""
        lines = []
        while (line := self.read()) is not None and line.strip() != self._end_of_block:
            lines.append(line)
        return "\n".join(lines)


class Commands(Completer):
    """Completes commands and what stands behind them, at the beginning of a message alone."""

    def __init__(self, forms: Mapping[str, str], choices: Mapping[str, Choices]) -> None:
        self._forms, self._choices = forms, choices
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or text.startswith("//") or "\n" in document.text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            for form, does in self._forms.items():
                if form.startswith(name):
                    yield Completion(form, -len(name), display=f"/{form}", display_meta=does)
        elif name == _FILE_COMMAND:
            yield from self._paths.get_completions(Document(argument), event)
        elif name in self._choices:
            for choice in self._choices[name]():
                if choice.startswith(argument):
                    yield Completion(choice, -len(argument))
