"""Downloads and other waits on standard error: drawn on a terminal, a line at start and end elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn


class DownloadProgress:
    """Follows the hub's work (it has `start`, `advance` and `finish`); a context manager.

    `quiet` asks for nothing at all.
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._bars = _bars(self._console) if self._console.is_terminal and not quiet else None
        self._task = ""
        self._started = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars:
            self._bars.stop()

    def start(self, task: str, total: int | None) -> None:
        self._task, self._started = task, time.monotonic()
        if self._bars:
            self._bars.start()
            self._bars.add_task(task, total=total)
        else:
            self._say(f"{task} ({total / 1e9:.2f} GB)" if total else task)

    def advance(self, count: int) -> None:
        if self._bars:
            self._bars.advance(self._bars.task_ids[-1], count)

    def finish(self, complete: bool) -> None:
        if self._bars is None:
            outcome = "done" if complete else "failed"
            self._say(f"{self._task}: {outcome} after {time.monotonic() - self._started:.1f} s")
            return
        task = self._bars.tasks[-1]
        if complete:  # an unknown total is known now
            self._bars.update(task.id, total=task.total or task.completed)
        else:
            self._bars.stop_task(task.id)
        # It stays where it was drawn, and what is printed next is not drawn over.
        self._bars.stop()
        self._bars.remove_task(task.id)

    def _say(self, line: str) -> None:
        if not self._quiet:
            self._console.print(line, markup=False, soft_wrap=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A sign of life beside `what` for as long as something of unknown length goes on; none into a pipe."""
    from rich.console import Console
    from rich.markup import escape

    # Rarely redrawn: what goes on may be a measurement.
    with Console(stderr=True, highlight=False).status(escape(what), refresh_per_second=2):
        yield


def measuring_bar(
    console: "Console", total: float, *columns: "ProgressColumn", left: str = ""
) -> "RichProgress":
    """A bar with one task, begun. It is rarely redrawn: what goes on is a measurement.

    `left` is a field of the task, for columns that show it.
    """
    from rich.progress import Progress

    bar = Progress(
        *columns, console=console, refresh_per_second=1, redirect_stdout=False, redirect_stderr=False
    )
    bar.add_task("", total=total, left=left)
    bar.start()
    return bar


def _bars(console: "Console") -> "RichProgress":
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        redirect_stdout=False,
        redirect_stderr=False,
    )
