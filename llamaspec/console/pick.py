"""Drafts for a main model, ranked, on the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from llamaspec.bench.pick import Option
from llamaspec.bench.sentences import relative
from llamaspec.console.tables import human_bytes, print_figures, wide_console

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {"faster": "green", "slower": "red"}


def print_options(options: Sequence[Option], *, measured: bool) -> None:
    """A row for each, on standard output, in their order."""
    console = wide_console()
    print_figures(_table(options, measured), console)
    if absent := [one for one in options if not one.here]:
        console.print()
        for one in absent:
            console.print(f"llamaspec pull {one.reference}", style="dim", markup=False)


def _table(options: Sequence[Option], measured: bool) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = ["draft", "file", "memory with it", *(["speedup"] if measured else []), ""]
    for name in columns:
        justify: Literal["left", "right"] = "right" if name == "file" else "left"
        table.add_column(name, overflow="fold", justify=justify, no_wrap=name == "memory with it")
    for one in options:
        size = human_bytes(one.size) if one.size else ""
        speedup = "1" if one.kind == "none" else relative(one.speedup) if one.usable else ""
        told = _told(one)
        style = _STYLES.get(told, "yellow" if one.problem or one.failed or not one.fits else "")
        cells = [one.name, size, one.fit, *([speedup] if measured else [])]
        table.add_row(*map(Text, cells), Text(told, style=style))
    return table


def _told(one: Option) -> str:
    if one.problem or one.failed:
        return one.problem or f"not measured: {one.failed}"
    if not one.fits:
        return "not enough memory"
    if not one.here:
        return "not here"
    return one.speedup.verdict if one.speedup else ""
