"""Figures of the study of cold starts: how much a model makes of the first few films of somebody new."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_lib.plots.style import COLOURS, INK, MUTED

SHAPES = ["o", "s", "^", "D", "v", "P", "X"]


def _sizes(table: pd.DataFrame) -> list[int]:
    """Sizes in their order; -1, the whole history, comes last."""
    return sorted(table["size"].unique(), key=lambda size: np.inf if size < 0 else size)


def _lines(axes: Axes, table: pd.DataFrame, by: str, names: list[str]) -> None:
    """A line a name, with intervals, a little apart from each other; sizes at equal distances."""
    sizes = _sizes(table)
    for place, name in enumerate(names):
        own = table[table[by] == name].set_index("size").reindex(sizes)
        x = np.arange(len(sizes)) + 0.06 * (place - (len(names) - 1) / 2)
        reach = [own["mean"] - own["low"], own["high"] - own["mean"]]
        look = {"color": COLOURS[place % len(COLOURS)], "marker": SHAPES[place % len(SHAPES)], "ms": 5, "lw": 1.5}
        axes.errorbar(x, own["mean"], yerr=reach, label=name, elinewidth=1, zorder=3, **look)
    axes.set_xticks(range(len(sizes)), ["all" if size < 0 else str(size) for size in sizes])
    axes.set_xlim(-0.4, len(sizes) - 0.6)
    axes.grid(visible=False, axis="x")


def new_users_figure(table: pd.DataFrame, named: list[str], title: str, metric: str = "NDCG@10") -> Figure:
    """Accuracy with 95 % intervals by the number of films that a model was shown; models not named stay grey.

    Parameters
    ----------
    table
        Of one way, from :func:`recsys_lib.evaluation.new_users.curve`.
    named
        Models with a colour, at most seven.
    """
    figure, axes = plt.subplots(figsize=(8.5, 4.8))
    sizes = _sizes(table)
    for _, own in table[~table["model"].isin(named)].groupby("model"):
        axes.plot(range(len(sizes)), own.set_index("size")["mean"].reindex(sizes), color=MUTED, lw=0.8, alpha=0.5)
    _lines(axes, table, "model", named)
    axes.set(title=f"{title} ({int(table['n_users'].min()):,} users, the same at every point)")
    axes.set(xlabel="films of theirs that the model was shown", ylabel=metric)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncol=min(4, len(named)))
    return figure


def ways_figure(table: pd.DataFrame, ways: dict[str, str], title: str, metric: str = "NDCG@10") -> Figure:
    """One model, a line a way to choose the films that it is shown.

    Parameters
    ----------
    table
        Of one model, from :func:`recsys_lib.evaluation.new_users.curve`; the whole history is a dashed line.
    ways
        What each way is called.
    """
    figure, axes = plt.subplots(figsize=(8.5, 4.2))
    whole, parts = table[table["size"] < 0], table[table["size"] >= 0]
    _lines(axes, parts.assign(called=parts["way"].map(ways)), "called", [ways[way] for way in parts["way"].unique()])
    if len(whole):
        axes.axhline(float(whole["mean"].iloc[0]), color=INK, lw=1, linestyle="--")
        text, at = "the whole history", (0.01, float(whole["mean"].iloc[0]))
        axes.annotate(text, at, (0, 4), ("axes fraction", "data"), "offset points", fontsize=9)
    axes.set(title=title, xlabel="films of theirs that the model was shown", ylabel=metric)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", title="which ones")
    return figure
