"""How plots look, and how they become SVG inside a page and PNG files.

Figures are drawn in the colours of the light page. Inside a page each colour is a CSS variable of the
same name in its place, so that one drawing serves light and dark. Text stays text, in the page's font.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from llamaspec.replacing import replacing

COLOURS = {
    "ink": "#1f1d1a",
    "soft": "#5f5b54",
    "line": "#dcd8d0",
    "raised": "#ffffff",
    "baseline": "#767066",
    # For the settings: apart for eyes that don't tell red from green, or blue from yellow, too.
    "series-1": "#1767c2",
    "series-2": "#ec5b0e",
    "series-3": "#0d4a43",
    "series-4": "#8f8ad8",
    "series-5": "#6b2d12",
    "series-6": "#c2257a",
}
SERIES = tuple(colour for name, colour in COLOURS.items() if name.startswith("series-"))
MARKERS = "osD^vPX"  # one more than there are colours: it takes long until a pair of both comes again

WIDTH = 4.2  # inches: what a phone shows without the letters becoming too small
PNG_DPI = 192  # twice the pixels of CSS
_FONT = "DejaVu Sans"  # comes with matplotlib
_FONT_SIZE = 8.5
_SOURCE_SIZE = 6.5
_WIDEST_NAME = 105.0  # points: a third of the width

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold dollar signs
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.edgecolor": COLOURS["line"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": _FONT_SIZE,
    "figure.facecolor": "none",
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
    "font.family": "sans-serif",
    "font.sans-serif": [_FONT],
    "font.size": _FONT_SIZE,
    "axes.labelsize": _FONT_SIZE,
    "xtick.labelsize": _FONT_SIZE,
    "ytick.labelsize": _FONT_SIZE,
    "legend.fontsize": _FONT_SIZE,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
    "legend.borderpad": 0.0,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}


@contextmanager
def drawing_style() -> Iterator[None]:
    """Under which figures are made and saved, whatever a person's own matplotlib settings say."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


@dataclass(frozen=True, slots=True)
class Look:
    """How a setting is drawn, in all plots alike."""

    label: str
    colour: str
    marker: str

    def legend(self) -> Line2D:
        return Line2D([], [], color=self.colour, marker=self.marker, label=self.label)


def looks(settings: Sequence[str], baseline: str) -> dict[str, Look]:
    """By setting; the baseline is grey."""
    others = [name for name in settings if name != baseline]
    chosen = {
        name: Look(drawable(name), SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(others)
    }
    return chosen | {baseline: Look(drawable(baseline), COLOURS["baseline"], "|")}


def drawable(text: str, widest: float = _WIDEST_NAME, size: float = _FONT_SIZE) -> str:
    """`text` as a plot can hold it: cut to `widest` points, and without letters that its font lacks."""
    font = FontProperties(family=_FONT, size=size)
    known = _letters()
    plain = "".join(letter if ord(letter) in known else "\N{WHITE SQUARE}" for letter in text)

    def width(text: str) -> float:
        return text_to_path.get_text_width_height_descent(text, font, False)[0]

    if width(plain) <= widest:
        return plain
    fitting = bisect_right(range(len(plain)), widest, key=lambda length: width(plain[:length] + "…"))
    return plain[: max(0, fitting - 1)] + "…"


@cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=_FONT))).get_charmap())


def canvas(height: float) -> tuple[Figure, Axes]:
    """An empty plot, `height` inches high. Figures are made without pyplot, which would keep them."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def legend(axes: Axes, entries: Sequence[Look]) -> None:
    """Above the plot, in as many columns as fit."""
    widths = [len(entry.label) + 5 for entry in entries]
    columns = len(entries) if sum(widths) <= 48 else max(1, 48 // max(widths))
    axes.legend(
        handles=[entry.legend() for entry in entries],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.4,
        ncols=columns,
    )


def as_svg(figure: Figure, name: str) -> str:
    """For use inside a page that defines the variables of COLOURS. `name` begins all of its ids."""
    file = StringIO()
    with drawing_style(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({key: _inside(key, value, name) for key, value in attributes.items()})
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("aria-hidden", "true")  # the page says in words and in a table what it shows
    return ElementTree.tostring(root, encoding="unicode")


def save_png(figure: Figure, path: Path, title: str, source: Sequence[str]) -> None:
    """On white, with a title and, in lines below, what it is of. Whoever reads the file finds it whole.

    The figure keeps both texts, and the room for them. Raises OSError.
    """
    with drawing_style(), replacing(path) as partial:
        figure.set_figheight(figure.get_figheight() + 0.4)
        figure.suptitle(title, x=0.02, ha="left", fontsize=10, fontweight="bold")
        below = "\n".join(drawable(line, 68 * WIDTH, _SOURCE_SIZE) for line in source)
        figure.supxlabel(below, x=0.02, ha="left", fontsize=_SOURCE_SIZE, color=COLOURS["soft"])
        figure.savefig(
            partial, format="png", dpi=PNG_DPI, facecolor=COLOURS["raised"], metadata={"Software": None}
        )


def _local(name: str) -> str:
    """Without the namespace: inside HTML, SVG needs none."""
    return name.rpartition("}")[2]


def _inside(key: str, value: str, name: str) -> str:
    """An attribute's value, with ids that no other plot has, and colours that follow the page."""
    if key == "id":
        return f"{name}-{value}"
    value = re.sub(r"url\(#", f"url(#{name}-", value)
    if key == "href":
        return re.sub(r"^#", f"#{name}-", value)
    if key == "style":
        value = re.sub(r"\s*font(-family)?:[^;]*(;|$)", _only_size, value)
        for variable, colour in COLOURS.items():
            value = value.replace(colour, f"var(--{variable})")
    return value


def _only_size(declaration: re.Match[str]) -> str:
    """Of a declaration of the font, its weight and size: which font it is, is for the page to say."""
    size = re.search(r"[\d.]+px", declaration[0])
    weight = "font-weight: bold; " if "bold" in declaration[0] else ""
    return f"{weight}font-size: {size[0]}; " if size else ""
