"""A search for settings on the terminal: where it is, and what came of it."""

from typing import TYPE_CHECKING, Self

from llamaspec.bench.sentences import relative
from llamaspec.bench.tuning.race import State
from llamaspec.bench.tuning.search import Found
from llamaspec.console.progress import measuring_bar
from llamaspec.console.tables import print_figures, wide_console
from llamaspec.figures import Figure, counted

if TYPE_CHECKING:
    from rich.progress import Progress

_STYLES = {"won": "green", "slower": "red", "failed": "red"}


class TuneProgress:
    """Shows each `State` on standard error; a context manager.

    A bar with the time left on a terminal, elsewhere a line for each thing that is tried; nothing if `quiet`.
    """

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._bar: Progress | None = None
        self._last = ("", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, state: State) -> None:
        if self._quiet:
            return
        left = max(0.0, state.total - state.spent)
        told = f"{int(left // 60)}:{int(left % 60):02} left at most"
        if self._console.is_terminal:
            self._draw(state, told)
        elif (now := (state.stage, state.doing)) != self._last:
            self._last = now
            self._console.print(f"{state.stage}: {state.doing} ({told})", markup=False)

    def _draw(self, state: State, told: str) -> None:
        from rich.progress import BarColumn, TextColumn

        if self._bar is None:
            columns = (BarColumn(24), TextColumn("{task.fields[left]}  {task.description}", markup=False))
            self._bar = measuring_bar(self._console, state.total, *columns, left=told)
        task = self._bar.task_ids[0]
        doing = f"{state.stage}: {state.doing}"
        self._bar.update(task, completed=min(state.spent, state.total), left=told, description=doing)


def print_found(found: Found) -> None:
    """What was tried, what it came to, what was chosen and why; on standard output."""
    from rich.table import Table
    from rich.text import Text

    console = wide_console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("stage", "tried", "writes", "reads prompts", "outcome"):
        table.add_column(name, overflow="fold")
    for one in found.tried:
        style = _STYLES.get(one.outcome.partition(":")[0], "")
        cells = (one.stage, one.change.name, relative(one.writing), relative(one.reading))
        table.add_row(*map(Text, cells), Text(one.outcome, style=style))
    console.print()
    print_figures(table, console)
    console.print(
        "Times as fast as what had won before it, with 95 % intervals from three heats on.", style="dim"
    )
    console.print()
    console.print(Text.assemble(("Chosen: ", "bold"), (_chosen(found), "bold green")))
    console.print(found.why, markup=False)
    proof = found.proof
    speeds = f"Plain decoding {_speed(proof.plain)}, as chosen {_speed(proof.speculative)} tokens per second"
    prompts = counted(len(proof.prompts), "prompt")
    few = ": too few to conclude from" if proof.speedup and proof.speedup.verdict == "too few" else ""
    console.print(f"{speeds}: {relative(proof.speedup)} over {prompts}{few}.", markup=False)


def _chosen(found: Found) -> str:
    return found.chosen.name if found.chosen.overrides or found.chosen.draft else "the default stays"


def _speed(figure: Figure | None) -> str:
    return "–" if figure is None else str(figure)
