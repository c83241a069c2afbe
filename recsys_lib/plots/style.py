"""The style of all figures, how they are saved, and what most are made of: rows of points, and lines with names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_lib.data.catalogue import label
from recsys_lib.files import replacing

WIDTH = 8.0  # inches: readable where a page is 680 pixels wide
INK = "#1f2933"
MUTED = "#7b8794"
# Colours that stay apart for colour-blind readers, after Okabe and Ito, "Color Universal Design" (2008): most at once.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#111111"]
MAIN, ACCENT = COLOURS[0], COLOURS[5]


def use_style() -> None:
    """Set seaborn's and matplotlib's defaults for this process."""
    sns.set_theme(style="whitegrid", palette=COLOURS, font="DejaVu Sans")
    mpl.rcParams.update(
        {
            "figure.dpi": 96,
            "savefig.dpi": 120,
            "figure.figsize": (WIDTH, 3.6),
            "figure.constrained_layout.use": True,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "#e4e7eb",
            "grid.linewidth": 0.8,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "svg.hashsalt": "recsys-lab",
        }
    )


def save_figure(figure: Figure, path: Path | str) -> Path:
    """Write a PNG that looks the same from the same data; the folder is made where it is missing."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return Path(path)


def draw_rows(
    axes: Axes, names: pd.Series, table: pd.DataFrame, value: str, strong: np.ndarray, texts: Iterable[str] = ()
) -> None:
    """Draw a row a name, first on top: a point with its interval, and a text to the right of it.

    ``table`` has ``value``, ``<value>_low``, ``<value>_high`` (NaN or missing: no interval); rows that ``strong``
    ((n_rows,) bool) marks are in colour, the others grey.
    """
    places = np.arange(len(table))[::-1]
    middle, low, high = (table.get(value + end, table[value]).to_numpy(float) for end in ("", "_low", "_high"))
    colours = np.where(strong, MAIN, MUTED)
    axes.hlines(places, low, high, colors=colours, linewidth=2)
    axes.scatter(middle, places, s=32, c=colours, zorder=3)
    for right, place, text in zip(np.fmax(middle, high), places, texts, strict=False):
        axes.annotate(text, (right, place), (6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, [label(str(name)) for name in names])
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.grid(visible=False, axis="y")


def draw_lines(
    axes: Axes,
    table: pd.DataFrame,
    x: str,
    value: str,
    by: str,
    level: tuple[str, float] | None = None,
) -> None:
    """Draw a line a name, points with intervals at equal distances, each named at its end; past seven they are grey.

    ``table`` has x, ``value``, ``by`` (the names), low and high of the interval (NaN: none); ``level`` is a name and a
    height to compare with, a dashed line across.
    """
    sizes, names = np.sort(table[x].unique()), table[by].unique()
    colours, last = dict(zip(names, COLOURS, strict=False)), []
    for shift, name in zip(0.05 * (np.arange(len(names)) - (len(names) - 1) / 2), names, strict=True):
        part = table[table[by] == name].sort_values(x)
        places, colour = np.searchsorted(sizes, part[x]) + shift, colours.get(name, MUTED)
        reach = [(part[value] - part["low"]).clip(lower=0), (part["high"] - part[value]).clip(lower=0)]
        axes.errorbar(places, part[value], reach, fmt="o-", color=colour, ms=4.5, lw=1.6, elinewidth=1)
        last += [(float(part[value].iloc[-1]), label(str(name)), colour)] if name else []
    if level:
        axes.axhline(level[1], color=MUTED, linewidth=1.2, linestyle="--", zorder=1)
        last.append((level[1], label(level[0]), MUTED))
    axes.set_xticks(range(len(sizes)), [f"{size:,g}" if isinstance(size, float) else f"{size:,}" for size in sizes])
    axes.grid(visible=False, axis="x")
    axes.margins(x=0.03)
    _name_ends(axes, sorted(last))


def _name_ends(axes: Axes, last: list[tuple[float, str, str]]) -> None:
    """Write names (height, name, colour; lowest first) at the right edge, apart where the heights are close."""
    low, high = axes.get_ylim()
    gap = (high - low) * 13 / (72 * 0.75 * axes.get_window_extent().height / axes.figure.dpi)
    heights = [height for height, *_ in last]
    for _ in range(len(last) * 20):  # neighbours that are too close push each other away until none is
        for place in range(len(heights) - 1):
            lack = max(0.0, gap - (heights[place + 1] - heights[place])) / 2
            heights[place], heights[place + 1] = heights[place] - lack, heights[place + 1] + lack
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "annotation_clip": False}
    for height, (_, name, colour) in zip(heights, last, strict=True):
        axes.annotate(name, (1, height), (4, 0), **place, va="center", color=colour, fontsize=9)


def grid_of(panels: int, height: float, columns: int = 2, **more: bool) -> tuple[Figure, np.ndarray]:
    """Make a figure with that many panels, ``height`` inches a line of them."""
    columns = min(columns, panels)
    lines = -(-panels // columns)
    figure, grid = plt.subplots(lines, columns, figsize=(WIDTH, lines * height), squeeze=False, **more)
    for axes in grid.ravel()[panels:]:
        axes.set_visible(False)
    return figure, grid.ravel()[:panels]
