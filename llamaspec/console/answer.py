"""The answer as it is made, drafted tokens in a second colour."""

from rich.console import Console

from llamaspec.events import TextEvent

DRAFTED = "cyan"
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def harmless(text: str) -> str:
    """What a model writes, so that it can't move the cursor, retitle the window or worse."""
    return text.translate(_CONTROL)


class AnswerPrinter:
    """Writes to standard output: as it is into a pipe, without control characters on a terminal."""

    def __init__(self, color: bool | None) -> None:
        """`color` None: on a terminal, unless NO_COLOR is set."""
        self._console = Console(highlight=False, soft_wrap=True, force_terminal=color)
        self._terminal = self._console.file.isatty()
        self._color = self._console.is_terminal and not self._console.no_color
        self._last = "\n"

    def write(self, event: TextEvent) -> None:
        text = harmless(event.text) if self._terminal else event.text
        if not text:
            return
        self._last = text[-1]
        if self._color:
            self._console.out(text, style=DRAFTED if event.drafted else None, highlight=False, end="")
        else:
            self._console.file.write(text)
        self._console.file.flush()

    def end(self) -> None:
        """The answer is complete: end its line."""
        if self._last != "\n":
            self._console.file.write("\n")
            self._console.file.flush()
