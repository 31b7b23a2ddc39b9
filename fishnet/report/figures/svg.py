"""Panels to pictures: inline SVG that follows the page's light or dark scheme, and SVG and PNG files.

A figure is a list of small panels, so that the page can lay them out anew on a narrow screen; the files under
`figures/` hold the same panels side by side.
"""

import html
import io
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from fishnet.host.names import escape_lines, escape_text

PX = 1 / 96  # inches
DIGIT, APART = 6.8, 8.0  # CSS pixels: of a digit under an axis, and between numbers
SHRINKS_FROM = 434  # CSS pixels; a wider panel scrolls on a narrow screen, where it would be too small to read
INK, MUTED, GRID = "#1c1d20", "#6a6e75", "#dfe2e6"
# Okabe and Ito's color-blind-safe colors without the yellow and black, the light ones darkened for a white page.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#c2579b", "#b97f00", "#3a9bd9")
MARKERS = ("o", "s", "^", "D", "v", "P")  # so that no line is told apart by its color alone
# In the page these colors become CSS variables, which the dark scheme sets otherwise.
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {c: f"--c{i}" for i, c in enumerate(SERIES)}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: sharp, searchable, in the page's own font
    "svg.hashsalt": "fishnet",  # the same sweep makes the same file
    "text.parse_math": False,  # a class may be called $x$
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "hatch.color": MUTED,
    "hatch.linewidth": 0.5,
}


@dataclass(frozen=True)
class Panel:
    """One set of axes. All lengths are in CSS pixels.

    Margins are given, not measured: measuring the text of every panel takes matplotlib longer than drawing it.

    Args:
        draw: draws on the axes it is given.
        alt: what the picture says, for those who cannot see it.
        width: of the axes.
        height: of the axes.
        left: margin for tick and axis labels.
        right: margin for what stands beside the axes.
        top: margin for the title.
        bottom: margin for tick and axis labels.
    """

    draw: Callable[[Axes], None]
    alt: str
    width: float
    height: float
    left: float = 52.0
    right: float = 24.0
    top: float = 24.0
    bottom: float = 42.0

    @property
    def outer(self) -> tuple[float, float]:
        """Width and height with margins."""
        return self.left + self.width + self.right, self.top + self.height + self.bottom

    def add_to(self, figure: Figure, x: float, y: float) -> None:
        """Draws the panel with its upper left corner `x` from the left and `y` from the top of the figure."""
        width, height = figure.get_size_inches() / PX
        box = (x + self.left, height - y - self.top - self.height, self.width, self.height)
        axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        self.draw(axes)
        if type(axes.xaxis.get_major_locator()) is AutoLocator:  # leaves too little room for numbers like -0.125
            axes.xaxis.set_major_locator(space_out(axes.xaxis, self.width))


def draw_svg(panel: Panel) -> str:
    """Draws a panel as an `<svg>` element without ids or metadata, with the colors of `VARIABLES`.

    It is XML whatever is written in the panel: characters that XML forbids are escaped as `names.escape_text` does.
    """
    text = io.StringIO()
    width, height = panel.outer
    with _quiet_style():
        figure = Figure(figsize=(width * PX, height * PX))
        panel.add_to(figure, 0, 0)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # never referred to, and the same in every figure
    body = tag_text(body, r"'DejaVu Sans'[^;\"]*sans-serif", lambda found: "system-ui, sans-serif")
    body = escape_lines(body)
    wide = ' class="wide"' if width > SHRINKS_FROM else ""
    points = f"{width * 0.75:g} {height * 0.75:g}"  # the unit of matplotlib's SVG
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img"{wide} '
        f'viewBox="0 0 {points}" width="{width:g}" height="{height:g}" '
        f'aria-label="{html.escape(escape_text(panel.alt))}">{body}'
    )


def follow_scheme(svg: str) -> str:
    """Replaces the colors in `svg` by CSS variables of the page; text stays as it is."""
    return tag_text(svg, r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]))


def tag_text(svg: str, pattern: str, replace: Callable[[re.Match], str]) -> str:
    """Replaces matches of `pattern` in the attributes of tags of `svg`, except in the label and in text."""
    attributes = re.compile(r' (?!aria-label)[\w:-]+="[^"]*"')
    return re.sub(
        r"<[a-zA-Z][^<>]*>",
        lambda tag: attributes.sub(lambda attribute: re.sub(pattern, replace, attribute[0]), tag[0]),
        svg,
    )


def save(panels: Sequence[Panel], svgs: Sequence[str], stem: Path, columns: int) -> None:
    """Writes the panels side by side, on white, as `stem`.svg (put together from `svgs`) and `stem`.png.

    A row is as high as its highest panel, a column as wide as its widest.
    """
    corners, (width, height) = corners_of([panel.outer for panel in panels], min(columns, len(panels)))
    nested = [svg.replace("<svg ", f'<svg x="{x:g}" y="{y:g}" ', 1) for svg, (x, y) in zip(svgs, corners, strict=True)]
    stem.with_suffix(".svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(nested)}</svg>\n',
        encoding="utf-8",
    )
    with _quiet_style():
        figure = Figure(figsize=(width * PX, height * PX), facecolor="white")
        for panel, corner in zip(panels, corners, strict=True):
            panel.add_to(figure, *corner)
        figure.savefig(stem.with_suffix(".png"), dpi=min(150, 20_000 / max(width, height) / PX))


def corners_of(
    sizes: Sequence[tuple[float, float]], columns: int
) -> tuple[list[tuple[float, float]], tuple[float, float]]:
    """Layout of panels row by row: (x, y) of their upper left corners, and (width, height) of the whole."""
    places = [divmod(i, columns) for i in range(len(sizes))]
    widths, heights = [0.0] * columns, [0.0] * -(-len(sizes) // columns)
    for (row, column), (width, height) in zip(places, sizes, strict=True):
        widths[column], heights[row] = max(widths[column], width), max(heights[row], height)
    corners = [(sum(widths[:column]), sum(heights[:row])) for row, column in places]
    return corners, (sum(widths), sum(heights))


def shorten(text: str, most: int) -> str:
    """Shortens `text` to `most` characters by leaving out its middle."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most - most // 2) :]}"


def space_out(axis: Axis, length: float) -> MaxNLocator:
    """Tick locator of a linear axis: as many round numbers as fit its length in CSS pixels."""
    low, high = sorted(axis.get_view_interval())
    for most in range(7, 1, -1):
        locator = MaxNLocator(nbins=most, steps=[1, 2, 5, 10])
        ticks = [tick for tick in locator.tick_values(low, high) if low <= tick <= high]
        longest = max(map(len, axis.get_major_formatter().format_ticks(ticks)), default=0)
        if len(ticks) < 3 or (ticks[1] - ticks[0]) / (high - low) * length >= DIGIT * longest + APART:
            break
    return locator


def plain_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers: powers of ten, and 2 and 5 times them where these are few.

    Matplotlib's own are formulas, which the pages would show as they are written.
    """
    low, high = axis.get_view_interval()
    # Of many decades some are left out: 0.00001 needs more room than one has.
    decades, most = high > 400 * low, 5 if high > 1e5 * low else 9
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0), numticks=most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _variable(color: str) -> str:
    return f"var({VARIABLES[color]})" if color in VARIABLES else color


class _quiet_style:
    """Context with the figures' style, without warnings about glyphs that only the page's font has."""

    def __enter__(self) -> None:
        self._rc, self._warnings = matplotlib.rc_context(STYLE), warnings.catch_warnings()
        self._rc.__enter__()
        self._warnings.__enter__()
        warnings.filterwarnings("ignore", message="Glyph")
        self._level = logging.getLogger("matplotlib").level
        logging.getLogger("matplotlib").setLevel(logging.ERROR)

    def __exit__(self, *error: Any) -> None:
        logging.getLogger("matplotlib").setLevel(self._level)
        self._warnings.__exit__(*error)
        self._rc.__exit__(*error)
