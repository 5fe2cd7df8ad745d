"""What a conversation looks like: notes, the reading of a prompt, answers, a line of figures after each."""

import sys
from collections.abc import Iterable
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from llamaspec.console.answer import AnswerPrinter, harmless
from llamaspec.events import FinishReason, ProgressEvent, TextEvent
from llamaspec.figures import counted
from llamaspec.stats import Stats


class Printer(Protocol):
    def write(self, event: TextEvent) -> None: ...

    def end(self) -> None: ...


class Screen:
    """Answers go to standard output, all else to standard error."""

    def __init__(self, *, color: bool | None, markdown: bool | None, quiet: bool) -> None:
        """`color` and `markdown` None: on a terminal. `quiet`: nothing that was not asked for."""
        self.markdown = sys.stdout.isatty() if markdown is None else markdown
        self._color = color
        self._quiet = quiet
        self._answered = False
        self._beside = Console(stderr=True, highlight=False, soft_wrap=True)

    def answer(self) -> "AnswerView":
        """Where to write the next answer. In a pipe an empty line parts it from the one before."""
        if self._answered and not sys.stdout.isatty():
            print()
        self._answered = True
        return AnswerView(self._printer(), None if self._quiet else self._beside)

    def show(self, text: str) -> None:
        """A text that was written earlier, as an answer is shown."""
        printer = self._printer()
        printer.write(TextEvent(0, text, (), drafted=False))
        printer.end()

    def note(self, text: str) -> None:
        """Something to know that comes unasked."""
        if not self._quiet:
            self.tell(text)

    def tell(self, text: str) -> None:
        """The reply to a command. What it quotes may be a foreign profile's, or a file's."""
        sys.stdout.flush()
        self._beside.print(Text(harmless(text), style="dim"))

    def table(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Rows of a reply; the first column stands out."""
        table = Table.grid(padding=(0, 2))
        for number, row in enumerate(rows):
            if number == 0:
                table.add_column(no_wrap=True)
                for _ in row[1:]:
                    table.add_column(style="dim", overflow="fold")
            table.add_row(*(Text(harmless(cell)) for cell in row))
        self._beside.print(table, soft_wrap=False)

    def _printer(self) -> Printer:
        if not self.markdown:
            return AnswerPrinter(self._color)
        from llamaspec.console.markdown import MarkdownPrinter

        return MarkdownPrinter(self._color)


class AnswerView:
    """One answer: a bar while the prompt is read, then the text."""

    def __init__(self, printer: Printer, beside: Console | None) -> None:
        self._printer = printer
        self._beside = beside if beside is not None and beside.is_terminal else None
        self._bar: Progress | None = None

    def progress(self, event: ProgressEvent) -> None:
        new = event.total - event.cached
        if self._bar is None and self._beside is not None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False, style="dim"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                console=self._beside,
                transient=True,
                refresh_per_second=4,
            )
            self._bar.add_task(f"reading {new:,} tokens…", total=new)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=event.processed - event.cached)

    def write(self, event: TextEvent) -> None:
        self._stop_bar()
        self._printer.write(event)

    def end(self) -> None:
        """No more comes: the terminal is left in order."""
        self._stop_bar()
        self._printer.end()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._beside = None, None


def turn_line(stats: Stats, reason: FinishReason, context_size: int) -> str:
    """What an answer came to, in a line."""
    told = [counted(stats.predicted_tokens, "token")]
    if speed := stats.tokens_per_second:
        told[0] += f" at {speed:.1f}/s"
    if stats.acceptance_rate is not None:
        told.append(f"{100 * stats.acceptance_rate:.0f} % of {stats.draft_n:,} drafted tokens accepted")
    if speedup := stats.estimated_speedup:
        told.append(f"≈ {speedup:.1f}× plain")
    if stats.time_to_first_token is not None:
        new = stats.prompt_tokens - stats.cached_tokens
        read = f"{new:,} tokens read" + (f", {stats.cached_tokens:,} known" if stats.cached_tokens else "")
        told.append(f"first token {stats.time_to_first_token:.2f} s ({read})")
    used = stats.prompt_tokens + stats.predicted_tokens
    if reason is FinishReason.LENGTH and used >= context_size:
        told.append("the context is full: /trim makes room")
    else:
        told.append(f"context {used:,} of {context_size:,}")
        if reason is FinishReason.LENGTH:
            told.append("ended by the token limit")
    if reason is FinishReason.CANCELLED:
        told.insert(0, "stopped")
    return " · ".join(told)
