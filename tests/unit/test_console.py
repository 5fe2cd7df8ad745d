"""What the terminal is given: tables that fit it, and text that nothing typed gets into."""

import io
import os
import sys

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llamaspec.console.tables import print_figures
from llamaspec.console.unechoed import unechoed


def printed(width: int) -> str:
    table = Table(box=None, pad_edge=False)
    for name in ("setting", "tokens/s", "times plain"):
        table.add_column(name)
    table.add_row("plain", Text("12.34 ± 0.56"), Text(""))
    table.add_row("auto", Text("23.45 ± 0.67"), Text("1.90× (1.80 to 2.00)"))
    file = io.StringIO()
    print_figures(table, Console(file=file, width=width))
    return file.getvalue()


def test_a_table_that_fits_is_one() -> None:
    header, plain, auto = printed(60).splitlines()
    assert header.split() == ["setting", "tokens/s", "times", "plain"]
    assert plain.startswith("plain") and auto.endswith("1.90× (1.80 to 2.00)")


def test_one_that_does_not_is_told_row_by_row() -> None:
    assert printed(40).splitlines() == [
        "plain",
        "  tokens/s  12.34 ± 0.56",
        "auto",
        "  tokens/s  23.45 ± 0.67",
        "  times plain  1.90× (1.80 to 2.00)",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="a console there shows nothing that nobody reads")
def test_what_is_typed_meanwhile_is_not_shown_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    import termios

    keyboard, terminal = os.openpty()
    try:
        with os.fdopen(terminal) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            with unechoed():
                assert not termios.tcgetattr(terminal)[3] & termios.ECHO
                os.write(keyboard, b"next\n")
            assert termios.tcgetattr(terminal)[3] & termios.ECHO
            assert stdin.readline() == "next\n"
    finally:
        os.close(keyboard)


def test_where_there_is_no_terminal_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("text"))
    with unechoed():
        assert sys.stdin.read() == "text"
