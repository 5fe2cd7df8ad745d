"""A report as one HTML file that needs nothing else: it loads nothing and runs nothing, and can be shared.

The page forbids itself both by its own content security policy. What it shows in plots it also says in
tables; names that come from files are text in it, whatever they hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llamaspec.bench import sentences, tables
from llamaspec.bench.drawing import as_svg
from llamaspec.bench.plots import MOST, TITLES, plots, write_png
from llamaspec.bench.report import Report
from llamaspec.bench.tables import Table
from llamaspec.replacing import replacing

_PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True, slots=True)
class _Plot:
    """What is said about a plot: in words what it shows, and why it is not there if it isn't."""

    caption: str
    absent: str
    table: Callable[[Report], Table]


_PLOTS = {
    "speedup-by-kind": _Plot(
        "How many times as fast as {baseline}, with 95 % intervals. A hollow mark shows no difference: its "
        "interval holds 1, there are too few runs for one, or the machine was too noisy.",
        "Only one setting was timed, so that there is nothing to compare.",
        tables.speedup_by_kind,
    ),
    "speed-over-time": _Plot(
        "Medians of the answers, with the middle half of them shaded; up to where half of them had ended.",
        "The times of single tokens were not recorded, or there are too few.",
        tables.speed_in_time,
    ),
    "acceptance-by-position": _Plot(
        "Of the draft tokens at each position, the share that was kept. Tokens behind a rejected one count "
        "as rejected. A hollow mark stands for fewer than 10 drafts.",
        "Nothing was drafted.",
        tables.acceptance_by_position,
    ),
    "accepted-per-round": _Plot(
        "How often a round kept so many draft tokens; 0 counts rounds without a draft too. Each round yields "
        "one token more: the main model's own.",
        "Nothing was drafted.",
        tables.accepted_rounds,
    ),
    "price-by-width": _Plot(
        "What the main model takes for so many tokens at once, and for the same one by one: speculation "
        "lives on the gap between the two.",
        "It was not measured here.",
        tables.price_by_width,
    ),
    "latency": _Plot(
        "Box: the middle half; thick line: the median; marks: the 95th (|) and 99th (×) percentile. Tokens "
        "of one round arrive together: all but the first take no time.",
        "The times of single tokens were not recorded.",
        tables.latency,
    ),
}


def write_html(report: Report, path: Path, png_folder: Path | None = None) -> None:
    """Write the page, and with `png_folder` each of its plots as `NAME.png` there, at twice the pixels.

    The same report gives the same bytes. Whoever reads a file finds it whole. Raises OSError.
    """
    figures = plots(report)
    page = _render(report, {name: as_svg(figure, name) for name, figure in figures.items()})
    with replacing(path) as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")
    if png_folder is not None:
        write_png(report, png_folder, figures)


def _render(report: Report, drawings: dict[str, str]) -> str:
    environment = Environment(
        loader=FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = tables.size
    return environment.get_template("report.html").render(
        report=report,
        headline=sentences.headline(report),
        key=report.outcome(sentences.key_setting(report)),
        percent=sentences.percent,
        text_kept=sentences.text_kept,
        relative=sentences.relative,
        speeds=tables.speeds(report),
        costs=tables.costs(report),
        roofline=sentences.roofline(report.roofline) if report.roofline else None,
        plots=[_shown(name, svg, report) for name, svg in drawings.items()],
        absent=[f"{TITLES[name]}: {plot.absent}" for name, plot in _PLOTS.items() if name not in drawings],
        differences=tables.differences(report),
        settings=tables.settings_in_effect(report),
        method=sentences.method(report),
        quiet=sentences.quiet(report),
        command=sentences.command(report),
        cut=len(report.outcomes) > MOST,
        most=MOST,
    )


def _shown(name: str, svg: str, report: Report) -> dict[str, Any]:
    plot = _PLOTS[name]
    return {
        "name": name,
        "title": TITLES[name],
        "caption": plot.caption.replace("{baseline}", report.baseline),
        "svg": Markup(svg),  # made here, with its texts escaped
        "table": plot.table(report),
    }
