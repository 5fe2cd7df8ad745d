"""Plain two-column tables, and numbers in the form that people read."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDE = 150  # columns where there is no terminal to ask
_ANY_WIDTH = 10_000


def human_bytes(count: int) -> str:
    """`count` bytes in binary units, as 1.04 GiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.{3 if size < 1000 else 4}g} {unit}" if unit != "B" else f"{count} B"
        size /= 1024
    return f"{size:.3g} TiB"


def human_count(count: int) -> str:
    """`count` in decimal units, as 1.78 B (billion)."""
    size = float(count)
    for unit in ("", " k", " M", " B"):
        if size < 1000:
            return f"{size:.3g}{unit}" if unit else str(count)
        size /= 1000
    return f"{size:.3g} T"


def wide_console() -> "Console":
    """Standard output, with room for tables of figures where it is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def print_figures(table: "Table", console: "Console") -> None:
    """A table whose first column names its rows; where the terminal is too narrow for it, row by row."""
    from rich.text import Text

    if console.measure(table, options=console.options.update(width=_ANY_WIDTH)).maximum <= console.width:
        console.print(table)
        return
    _, *columns = table.columns
    for name, *cells in zip(*(column.cells for column in table.columns), strict=True):
        console.print(Text(str(name), style="bold"))
        for column, cell in zip(columns, cells, strict=True):
            if str(cell):
                console.print(Text(f"  {column.header}  ", style="dim"), cell, sep="")


def print_facts(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """A titled table of names and values on standard output; values are text, never markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, title=Text(title, style="bold"), title_justify="left")
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    Console().print(table)
