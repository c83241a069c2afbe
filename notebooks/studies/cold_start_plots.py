"""Figures of the study of cold start: how much a model makes of the first few films of a new user."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_lib.plots.style import COLOURS, INK, MUTED

SHAPES = ["o", "s", "^", "D", "v", "P", "X"]


def _lines(axes: Axes, table: pd.DataFrame, by: str, names: list[str]) -> list[int]:
    """A line a name, with intervals; sizes at equal distances, and last -1, the whole history."""
    sizes = sorted(table["size"].unique(), key=lambda size: np.inf if size < 0 else size)
    for place, name in enumerate(names):
        own = table[table[by] == name].set_index("size").reindex(sizes)
        x = np.arange(len(sizes)) + 0.06 * (place - (len(names) - 1) / 2)
        reach = [own["mean"] - own["low"], own["high"] - own["mean"]]
        look = {"color": COLOURS[place % len(COLOURS)], "marker": SHAPES[place % len(SHAPES)], "ms": 5, "lw": 1.5}
        axes.errorbar(x, own["mean"], yerr=reach, label=name, elinewidth=1, zorder=3, **look)
    axes.set_xticks(range(len(sizes)), ["all" if size < 0 else str(size) for size in sizes])
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="films of theirs that the model was shown", ylabel="NDCG@10")
    axes.set_ylim(bottom=0)
    return sizes


def new_users_figure(table: pd.DataFrame, named: list[str], title: str) -> Figure:
    """Accuracy with 95 % intervals by the number of films that a model was shown, one way to choose them.

    Parameters
    ----------
    table
        From :func:`recsys_lib.evaluation.new_users.curve`.
    named
        Models with a colour, at most seven; the others stay grey.
    """
    figure, axes = plt.subplots(figsize=(8.5, 4.8))
    sizes = _lines(axes, table, "model", named)
    for _, own in table[~table["model"].isin(named)].groupby("model"):
        axes.plot(range(len(sizes)), own.set_index("size")["mean"].reindex(sizes), color=MUTED, lw=0.8, alpha=0.5)
    axes.set_title(f"{title} ({int(table['n_users'].min()):,} users, the same at every point)")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncol=min(4, len(named)))
    return figure


def ways_figure(table: pd.DataFrame, ways: dict[str, str], title: str) -> Figure:
    """One model, a line a way to choose the films that it is shown; the whole history is a dashed line.

    Parameters
    ----------
    table
        Of one model, from :func:`recsys_lib.evaluation.new_users.curve`.
    ways
        What each way is called.
    """
    figure, axes = plt.subplots(figsize=(8.5, 4.2))
    whole, parts = table[table["size"] < 0], table[table["size"] >= 0]
    _lines(axes, parts.assign(called=parts["way"].map(ways)), "called", [ways[way] for way in parts["way"].unique()])
    for value in whole["mean"].iloc[:1]:
        axes.axhline(value, color=INK, lw=1, linestyle="--")
        place = (0.01, value), (0, 4), ("axes fraction", "data"), "offset points"
        axes.annotate("the whole history", *place, fontsize=9)
    axes.set_title(title)
    axes.legend(loc="lower right", title="which ones")
    return figure
