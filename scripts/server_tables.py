"""What came out of a benchmark of servers, as tables on the terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from server_results import SPEED, STALL, Disturbance, Measured, by_subject, known, summary


def figure(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}×"


def line(one: Measured, rounds: int) -> str:
    """What is told of each round as soon as it is done."""
    figures = one.figures
    if isinstance(one, Disturbance):
        alone, disturbed = (figure(figures[f"{state}_gap_p95"], 3) for state in ("quiet", "disturbed"))
        told = f"p95 gap {alone} s, disturbed {disturbed} s"
        if not one.stall.covered:
            told += "  (the stream ended before the prompt was read)"
    else:
        told = f"{figures[SPEED]:8.2f} tokens/s"
    if one.busy:
        told += f"  (not to be relied on: others used {one.others:.0%} of the machine)"
    return f"round {one.round + 1}/{rounds}  {one.test:10} {one.subject:24}{told}"


Column = Callable[[Mapping[str, Any], Sequence[Measured]], str]


def middle_of(key: str, digits: int = 2) -> Column:
    return lambda figures, _: figure(figures[key], digits)


def spread(key: str) -> Column:
    def cell(_: Mapping[str, Any], measured: Sequence[Measured]) -> str:
        values = known(measured, key)
        return f"{min(values):.2f}-{max(values):.2f}" if values else "-"

    return cell


LOAD_COLUMNS = {
    "tokens/s": middle_of(SPEED),
    "min-max": spread(SPEED),
    "first token p50": middle_of("first_token_p50"),
    "p95": middle_of("first_token_p95"),
    "gap p50": middle_of("gap_p50", 3),
    "gap p95": middle_of("gap_p95", 3),
    "drafted": middle_of("drafted", 0),
    "accepted": middle_of("accepted", 0),
}
STALL_COLUMNS = {
    "p95 gap": middle_of("quiet_gap_p95", 3),
    "disturbed": middle_of("disturbed_gap_p95", 3),
    "slowdown": lambda figures, _: shown(figures["slowdown"]),
    "min-max": spread("slowdown"),
    "longest gap": middle_of("longest_gap"),
    "gaps": middle_of("gaps_seen", 0),
    "long prompt's first token": middle_of("long_first_token"),
}


def print_tables(measured: Sequence[Measured]) -> None:
    """What came out of each test: medians over the rounds, and where there are any the ratios of speeds."""
    console = Console()
    if not console.is_terminal:
        console.width = 140
    for test, found in summary(measured).items():
        of_test = by_subject([one for one in measured if one.test == test])
        columns = STALL_COLUMNS if test == STALL else LOAD_COLUMNS
        table = Table("subject", title=f"{test}: medians over the rounds, times in seconds")
        for header in (*columns, "busy rounds"):
            table.add_column(header, justify="right")
        for name, figures in found["subjects"].items():
            cells = [column(figures, of_test[name]) for column in columns.values()]
            table.add_row(name, *cells, str(figures["busy"]))
        console.print(table)
        if any(found["ratios"].values()):
            console.print(ratio_table(found["ratios"], test))


def ratio_table(ratios: Mapping[str, Mapping[str, Mapping[str, float]]], test: str) -> Table:
    table = Table("times as fast as", title=f"{test}: medians of the rounds' ratios, lowest-highest")
    for name in ratios:
        table.add_column(name, justify="right")
    for name, to in ratios.items():
        cells = (
            f"{shown(r['median'])} {r['lowest']:.2f}-{r['highest']:.2f}" if (r := to.get(other)) else ""
            for other in ratios
        )
        table.add_row(name, *cells)
    return table
