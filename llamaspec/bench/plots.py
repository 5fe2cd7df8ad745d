"""The plots of a report, drawn with matplotlib.

Each function gives None where the report has nothing for its plot. Hollow marks are figures that
prove nothing: an interval that holds 1, too few samples, or a machine too noisy.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from llamaspec.bench.drawing import (
    COLOURS,
    WIDTH,
    Look,
    canvas,
    drawable,
    drawing_style,
    legend,
    looks,
    save_png,
)
from llamaspec.bench.report import Outcome, Report
from llamaspec.bench.series import (
    acceptance,
    accepted_per_round,
    compared,
    kinds,
    relative_speeds,
    speed_over_time,
)

TITLES = {
    "speedup-by-kind": "Speed by kind of text",
    "speed-over-time": "Speed while an answer is written",
    "acceptance-by-position": "Acceptance by position",
    "accepted-per-round": "Accepted tokens per round",
    "price-by-width": "Price of a round by width",
    "latency": "From one token to the next",
}
"""By name, in the order of reading."""

MOST = 12
"""Settings that are drawn, and kinds: more would be no picture. The tables have all."""


def plots(report: Report) -> dict[str, Figure]:
    """By name, in the order of reading; only those that the report has figures for."""
    drawn = {}
    with drawing_style():
        for name, draw in _DRAW.items():
            if (figure := draw(report)) is not None:
                drawn[name] = figure
    return drawn


def write_png(report: Report, folder: Path, figures: Mapping[str, Figure] | None = None) -> None:
    """Each plot as `NAME.png`, at twice the pixels of a page, with its title and what it is of.

    `figures` are those of `plots(report)`, where they are there already. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = f" + {report.draft.file}" if report.draft else ""
    machine = f"{report.machine.cpu}, {report.machine.cores} cores · {report.made_by}"
    source = (report.main.file + draft, machine)
    for name, figure in (plots(report) if figures is None else figures).items():
        save_png(figure, folder / f"{name}.png", TITLES[name], source)


def _looks(report: Report) -> dict[str, Look]:
    return looks([outcome.setting for outcome in report.outcomes], report.baseline)


def _speedup_by_kind(report: Report) -> Figure | None:
    outcomes = compared(report)[:MOST]
    if not outcomes:
        return None
    look = _looks(report)
    names = kinds(report)[:MOST]
    labels = [drawable(name) for name in relative_speeds(outcomes[0], names)]
    step = 0.72 / len(outcomes)
    figure, axes = canvas(0.85 + len(labels) * (0.16 + 0.13 * len(outcomes)))
    axes.axvline(1.0, color=COLOURS["baseline"], linewidth=1.2)
    ends = [1.0]
    for number, outcome in enumerate(outcomes):
        colour, marker = look[outcome.setting].colour, look[outcome.setting].marker
        for row, ratio in enumerate(relative_speeds(outcome, names).values()):
            if ratio is None:
                continue
            height = row + (number - (len(outcomes) - 1) / 2) * step
            ends.append(ratio.value)
            if ratio.interval is not None:
                low, high = ratio.interval
                axes.plot([low, high], [height, height], color=colour)
                # A wide interval may go on past the edge: it would leave the others no room.
                ends += [max(low, ratio.value / 2), min(high, ratio.value * 2)]
            proven = report.conclusive and ratio.verdict in ("faster", "slower")
            face = colour if proven else COLOURS["raised"]
            axes.plot([ratio.value], [height], marker=marker, color=colour, markerfacecolor=face)
    axes.axhline(0.5, color=COLOURS["line"], linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    margin = 0.05 * (max(ends) - min(ends)) or 0.05
    axes.set_xlim(min(ends) - margin, max(ends) + margin)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.set_xlabel(f"speed, times {drawable(report.baseline)}")
    axes.grid(axis="x")
    axes.tick_params(length=0)
    legend(axes, [look[outcome.setting] for outcome in outcomes])
    return figure


def _acceptance_by_position(report: Report) -> Figure | None:
    series = {outcome.setting: acceptance(outcome) for outcome in report.outcomes}
    drawn = [name for name, places in series.items() if places][:MOST]
    if not drawn:
        return None
    look = _looks(report)
    figure, axes = canvas(2.9)
    for name in drawn:
        colour, marker, places = look[name].colour, look[name].marker, series[name]
        axes.plot([place.position for place in places], [place.share for place in places], color=colour)
        for place in places:
            face = colour if place.sure else COLOURS["raised"]
            axes.plot([place.position], [place.share], marker=marker, color=colour, markerfacecolor=face)
    axes.set_ylim(0.0, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    _whole_numbers(axes, "position in the draft", from_one=True)
    axes.set_ylabel("accepted")
    legend(axes, [look[name] for name in drawn])
    return figure


def _accepted_per_round(report: Report) -> Figure | None:
    series = [(outcome, shares) for outcome in report.outcomes if (shares := accepted_per_round(outcome))]
    if not series:
        return None
    look = _looks(report)
    drawn = series[:MOST]
    figure = Figure(figsize=(WIDTH, 0.7 + 0.85 * len(drawn)), layout="constrained")
    panels = figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0]
    most = max(max(shares.values()) for _, shares in drawn)
    for axes, (outcome, shares) in zip(panels, drawn, strict=True):
        axes.bar(list(shares), list(shares.values()), width=0.78, color=look[outcome.setting].colour)
        axes.set_title(look[outcome.setting].label, pad=2.0)
        axes.set_ylim(0.0, most * 1.05)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.grid(axis="y")
        axes.tick_params(length=0)
    _whole_numbers(panels[-1], "draft tokens accepted in a round")
    return figure


def _speed_over_time(report: Report) -> Figure | None:
    series = dict(list(speed_over_time(report).items())[:MOST])
    if not series:
        return None
    look = _looks(report)
    figure, axes = canvas(2.9)
    for name, windows in series.items():
        ends, colour = [window.end for window in windows], look[name].colour
        axes.fill_between(
            ends,
            [window.low for window in windows],
            [window.high for window in windows],
            color=colour,
            alpha=0.13,
            linewidth=0.0,
        )
        middle = [window.middle for window in windows]
        axes.plot(ends, middle, color=colour, marker=look[name].marker, markersize=3.0)
    axes.set_ylim(bottom=0.0)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("seconds since the first token")
    axes.set_ylabel("tokens per second")
    axes.grid(axis="y")
    axes.tick_params(length=0)
    legend(axes, [look[name] for name in series])
    return figure


def _price_by_width(report: Report) -> Figure | None:
    prices = report.prices
    if prices is None or not prices.main_seconds:
        return None
    widths = sorted(prices.main_seconds)
    milliseconds = [1000 * prices.main_seconds[width] for width in widths]
    figure, axes = canvas(2.9)
    main = Look("main model", COLOURS["series-1"], "o")
    one_by_one = Look("if one by one", COLOURS["baseline"], "")
    draft = Look("a draft token", COLOURS["series-2"], "")
    entries = [main]
    if widths[0] == 1:
        axes.plot([0, widths[-1]], [0, widths[-1] * milliseconds[0]], color=one_by_one.colour, linewidth=1.0)
        entries.append(one_by_one)
    if prices.draft_step_seconds is not None:
        axes.axhline(1000 * prices.draft_step_seconds, color=draft.colour, linewidth=1.0)
        entries.append(draft)
    axes.plot(widths, milliseconds, color=main.colour, marker=main.marker)
    axes.set_ylim(0.0, (max(milliseconds) or 1.0) * 1.15)
    axes.set_xlim(0, widths[-1] * 1.03)
    _whole_numbers(axes, "tokens in one decode")
    axes.set_ylabel("milliseconds")
    legend(axes, entries)
    return figure


def _latency(report: Report) -> Figure | None:
    drawn: Sequence[Outcome] = [outcome for outcome in report.outcomes if outcome.latency is not None][:MOST]
    if not drawn:
        return None
    look = _looks(report)
    figure, axes = canvas(0.75 + 0.38 * len(drawn))
    for row, outcome in enumerate(drawn):
        latency, colour = outcome.latency, look[outcome.setting].colour
        if latency is None:
            continue
        first, third = 1000 * latency.first_quartile, 1000 * latency.third_quartile
        axes.plot([1000 * latency.low, first], [row, row], color=colour)
        axes.plot([third, 1000 * latency.high], [row, row], color=colour)
        axes.barh(row, third - first, 0.5, first, color=COLOURS["raised"], edgecolor=colour, linewidth=1.2)
        axes.vlines(1000 * latency.p50, row - 0.25, row + 0.25, color=colour, linewidth=2.4)
        axes.plot([1000 * latency.p95], [row], marker="|", markersize=9, color=colour)
        axes.plot([1000 * latency.p99], [row], marker="x", color=colour)
    axes.set_yticks(range(len(drawn)), [look[outcome.setting].label for outcome in drawn])
    axes.set_ylim(len(drawn) - 0.5, -0.5)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("milliseconds from one token to the next")
    axes.grid(axis="x")
    axes.tick_params(length=0)
    return figure


def _whole_numbers(axes: Axes, label: str, *, from_one: bool = False) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if from_one:
        axes.set_xlim(left=0.5)
    axes.set_xlabel(label)
    axes.grid(axis="y")
    axes.tick_params(length=0)


_DRAW: dict[str, Callable[[Report], Figure | None]] = {
    "speedup-by-kind": _speedup_by_kind,
    "speed-over-time": _speed_over_time,
    "acceptance-by-position": _acceptance_by_position,
    "accepted-per-round": _accepted_per_round,
    "price-by-width": _price_by_width,
    "latency": _latency,
}
