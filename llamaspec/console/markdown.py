"""Markdown as it is written: the block in progress as plain text, what is complete as it is meant."""

import time
from collections import deque
from itertools import pairwise

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment, SegmentLines
from rich.text import Text

from llamaspec.console.answer import DRAFTED, harmless
from llamaspec.events import TextEvent

_FRAME_SECONDS = 1 / 12
# HTML and the addresses at the end of a text are text here: rich would leave them out.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")


class MarkdownPrinter:
    """Writes to standard output. A block that is complete is drawn as Markdown.

    Until then its text is shown as it comes, drafted tokens in their colour.
    """

    def __init__(self, color: bool | None, console: Console | None = None) -> None:
        """`color` None: on a terminal, unless NO_COLOR is set."""
        off = True if color is False else None
        self._console = console or Console(highlight=False, force_terminal=color or None, no_color=off)
        self._source = ""  # of the block in progress
        self._pieces: deque[tuple[str, bool]] = deque()  # the same, and what of it was drafted
        self._live: Live | None = None
        self._begun = False
        self._drawn = 0.0

    def write(self, event: TextEvent) -> None:
        text = harmless(event.text)
        self._source += text
        self._pieces.append((text, event.drafted))
        if "\n" in text and len(starts := _block_starts(self._source)) > 1:
            complete = self._take(starts[-1])
            if self._live is not None:
                self._live.update(self._tail())  # what is printed goes above it
            self._print(complete)
        now = time.monotonic()
        if self._console.is_terminal and now - self._drawn >= _FRAME_SECONDS:
            self._drawn = now
            self._draw()

    def end(self) -> None:
        """The answer is complete."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._print(self._take(len(self._source)))

    def _take(self, length: int) -> str:
        """So much of the block in progress, which is no longer part of it."""
        taken, self._source = self._source[:length], self._source[length:]
        while length:
            text, drafted = self._pieces.popleft()
            if len(text) > length:
                self._pieces.appendleft((text[length:], drafted))
            length -= min(length, len(text))
        return taken

    def _draw(self) -> None:
        if self._live is None:
            self._live = Live(self._tail(), console=self._console, auto_refresh=False, transient=True)
            self._live.start(refresh=True)
        else:
            self._live.update(self._tail(), refresh=True)

    def _tail(self) -> "_Tail":
        """The last pieces of the block, as many as a screen may hold."""
        room = self._console.width * self._console.height
        last: list[tuple[str, str]] = []
        for text, drafted in reversed(self._pieces):
            last.append((text, DRAFTED if drafted else ""))
            room -= len(text)
            if room <= 0:
                break
        return _Tail(Text.assemble(*reversed(last)), gap=self._begun)

    def _print(self, source: str) -> None:
        starts = _block_starts(source + "\n")
        for start, end in pairwise([*starts, len(source)]):
            lines = self._console.render_lines(_Markdown(source[start:end]), pad=False)
            if self._begun:
                self._console.print()
            self._begun = True
            self._console.print(SegmentLines(_without_margins(lines), new_lines=True))


class _Markdown(Markdown):
    """Line ends stay, addresses are shown in full, and HTML is text."""

    def __init__(self, source: str) -> None:
        super().__init__(source, hyperlinks=False)
        self.parsed = _PARSER.parse(source)
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "softbreak":
                    child.type = "hardbreak"


class _Tail:
    """The end of a text, as much as the terminal has room for."""

    def __init__(self, text: Text, *, gap: bool) -> None:
        self._text, self._gap = text, gap

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = max(1, console.size.height - 2)
        end = Text("\n").join(self._text.split("\n", allow_blank=True)[-room:])
        lines = [*([[]] if self._gap else []), *console.render_lines(end, options, pad=False)][-room:]
        for number, line in enumerate(lines):
            if number:
                yield Segment.line()
            yield from line


def _block_starts(source: str) -> list[int]:
    """Where, in characters, the outermost blocks begin, going by the lines that have an end.

    To a block nothing can be added any more when a line of the next one is there.
    """
    lines = [line + "\n" for line in source.split("\n")[:-1]]
    return [
        sum(map(len, lines[: token.map[0]]))
        for token in _PARSER.parse("".join(lines))
        if token.level == 0 and token.map is not None and token.nesting >= 0
    ]


def _without_margins(lines: list[list[Segment]]) -> list[list[Segment]]:
    """Without the empty lines around a block, and without the blanks at the ends of lines."""
    cut = [_without_blanks(line) for line in lines]
    while cut and not cut[0]:
        cut.pop(0)
    while cut and not cut[-1]:
        cut.pop()
    return cut


def _without_blanks(line: list[Segment]) -> list[Segment]:
    while line and not (line[-1].style and line[-1].style.bgcolor):
        *others, last = line
        if text := last.text.rstrip():
            return [*others, Segment(text, last.style)]
        line = others
    return line
