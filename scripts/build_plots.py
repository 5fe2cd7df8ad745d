#!/usr/bin/env python3
"""The plots of the documentation, from `docs/data/measured.yaml` into `docs/plots/`.

Usage: scripts/build_plots.py [FOLDER]

Each is an SVG file of its own in the colours of the reader's page, light or dark. It holds the SHA-256 of
the data that it was drawn from, so that a plot that has been forgotten is noticed.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from llamaspec.bench import drawing
from llamaspec.bench.drawing import COLOURS, as_svg, canvas, drawing_style, legend, looks

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "docs" / "data" / "measured.yaml"
PLOTS = ROOT / "docs" / "plots"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    measured = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    for name, draw in _PLOTS.items():
        with drawing_style():
            figure = draw(measured)
        svg = as_svg(figure, name).replace('aria-hidden="true"', "", 1)
        inside = f"<!-- {fingerprint()} --><style>{_palettes()}</style>"
        page = re.sub(r"^<svg ([^>]*)>", rf'<svg xmlns="http://www.w3.org/2000/svg" \1>{inside}', svg)
        (folder / f"{name}.svg").write_text(page + "\n", encoding="utf-8")


def fingerprint() -> str:
    """Of the data that the plots are drawn from."""
    return hashlib.sha256(DATA.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _palettes() -> str:
    """The light and the dark colours of the benchmark's report, for the variables that `as_svg` leaves."""
    css = (Path(drawing.__file__).parent / "page" / "report.css").read_text(encoding="utf-8")
    light, dark = (
        " ".join(f"--{name}: {colour};" for name, colour in found if name in COLOURS)
        for found in (re.findall(r"--([\w-]+): (#\w+);", block) for block in css.split("@media screen")[:2])
    )
    text = "text { font-family: system-ui, sans-serif; }"
    return f":root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }} {text}"


def _prices(measured: Mapping[str, Any]) -> Figure:
    """A decode of several tokens at once against one of one: what checking a draft costs."""
    figure, axes = canvas(2.9)
    prices = measured["prices"]
    look = looks(list(prices), "")
    widest = max(max(table) for table in prices.values())
    axes.plot([1, widest], [1, widest], color=COLOURS["baseline"], linestyle=":", linewidth=1.2)
    axes.annotate("one after the other", (9.2, 9.6), ha="right", color=COLOURS["soft"], fontsize=8.0)
    for name, table in prices.items():
        single = sum(table[1]) / 2
        times = [sum(ends) / 2 / single for ends in table.values()]
        axes.fill_between(
            list(table),
            [low / single for low, _ in table.values()],
            [high / single for _, high in table.values()],
            color=look[name].colour,
            alpha=0.15,
            linewidth=0.0,
        )
        axes.plot(list(table), times, color=look[name].colour, marker=look[name].marker)
    axes.set_xticks([1, 2, 4, 6, 8, 12, 16])
    axes.set_ylim(0.0, 11.0)
    axes.set_xlabel("tokens in one decode of the main model")
    axes.set_ylabel("times the price of one token")
    axes.grid(axis="y")
    legend(axes, [look[name] for name in prices])
    return figure


def _speedups(measured: Mapping[str, Any]) -> Figure:
    series = dict(measured["speedups"])
    kinds = series.pop("kinds")
    look = looks(list(series), "")
    figure, axes = canvas(3.6)
    axes.axvline(1.0, color=COLOURS["baseline"], linewidth=1.2)
    for number, (name, values) in enumerate(series.items()):
        rows = [row + (number - (len(series) - 1) / 2) * 0.16 for row in range(len(kinds))]
        axes.plot(values, rows, color=look[name].colour, marker=look[name].marker, linestyle="none")
    axes.axhline(len(kinds) - 1.5, color=COLOURS["line"], linewidth=0.8)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_xlabel("speed, times plain decoding")
    axes.grid(axis="x")
    axes.tick_params(length=0)
    legend(axes, [look[name] for name in series])
    return figure


def _programs(measured: Mapping[str, Any]) -> Figure:
    speeds = measured["programs"]
    figure, axes = canvas(1.7)
    ours = [name.startswith("llamaspec") for name in speeds]
    colours = [COLOURS["series-1"] if own else COLOURS["baseline"] for own in ours]
    bars = axes.barh(list(speeds), list(speeds.values()), height=0.62, color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8.5, color=COLOURS["ink"])
    axes.set_xlim(0.0, 37.0)
    axes.set_xlabel("tokens per second")
    axes.grid(axis="x")
    axes.tick_params(length=0)
    return figure


_PLOTS: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "prices": _prices,
    "speedups": _speedups,
    "programs": _programs,
}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PLOTS)
