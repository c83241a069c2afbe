"""Figures of models side by side: boards, groups of users and items, curves, predicted beside given ratings."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_lib.data.catalogue import label
from recsys_lib.plots.style import COLOURS, MUTED, WIDTH, draw_lines, draw_rows, grid_of

ROW = 0.31  # inches


def leaderboard_figure(board: pd.DataFrame, title: str = "", *, of: str = "", level: str = "") -> Figure:
    """Mean of the ranking metric for each model with its interval, in the order given.

    ``board`` is from :func:`recsys_lib.evaluation.task.compare` or ``Training.compare``, ``of`` says what the metric
    was measured on, and the mean of the model ``level`` is drawn through all rows.
    """
    by = board.attrs.get("by", "ndcg@10")
    figure, axes = plt.subplots(figsize=(WIDTH, ROW * len(board) + 1.3))
    texts = [f"{value:.3f}" for value in board[by]]
    draw_rows(axes, board["model"], board, by, ~board["distinct"].to_numpy(bool), texts)
    if level:
        axes.axvline(float(board.loc[board["model"] == level, by].iloc[0]), color=MUTED, lw=1, ls="--", zorder=0)
    high = float(np.nanmax([0, *board[by], *board[by + "_high"]]))
    axes.set_xlim(0, high * 1.12 or 1)  # nothing was held out: no points
    axes.set_title(title or f"{label(by)} over {int(board['n_users'].iloc[0]):,} users")
    note = "blue: the best, or not shown to be worse" + (f"; dashed: {label(level)}" if level else "")
    axes.set_xlabel(f"{label(by)}{of and ' '}{of} with 95% interval\n{note}")
    return figure


def segments_figure(table: pd.DataFrame, models: list[str], title: str) -> Figure:
    """Means with intervals by group of users or items, a panel a segment, a colour a model (named in the first)."""
    segments = table["segment"].unique()
    figure, panels = grid_of(len(segments), 2.9, sharex=True)
    for axes, segment in zip(panels, segments, strict=True):
        part = table[table["segment"] == segment]
        groups = part["group"].unique()[::-1]
        for shift, model, colour in zip(np.linspace(0.27, -0.27, len(models)), models, COLOURS, strict=False):
            own = part[part["model"] == model].set_index("group").reindex(groups)
            places = np.arange(len(groups)) + shift
            axes.hlines(places, own["low"], own["high"], colors=colour, linewidth=2)
            axes.plot(own["mean"], places, "o", color=colour, ms=4)
            if axes is panels[0]:
                style = {"textcoords": "offset points", "va": "center", "fontsize": 8.5, "color": colour}
                highest = part.loc[part["group"] == groups[-1], "high"].max()
                axes.annotate(label(model), (highest, places[-1]), (6, 0), **style)
        axes.set_yticks(np.arange(len(groups)), groups)
        axes.set_ylim(-0.6, len(groups) - 0.4)
        axes.set_title(label(segment))
        axes.tick_params(labelbottom=True)
        axes.grid(visible=False, axis="y")
    figure.suptitle(f"{title}, with 95% intervals", x=0.01, ha="left", weight="bold", fontsize=11)
    return figure


def draw_reliability(axes: Axes, tables: Mapping[str, pd.DataFrame]) -> None:
    """Draw predicted beside given ratings, a line a model; on the diagonal a prediction means what it says.

    ``tables`` are from :func:`recsys_lib.evaluation.segments.reliability`, by model.
    """
    whole = pd.concat(tables.values())
    ends = [whole[["predicted", "low"]].min().min() - 0.1, whole[["predicted", "high"]].max().max() + 0.1]
    axes.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1.2)
    for (name, table), colour in zip(tables.items(), COLOURS, strict=False):
        reach = [table["rating"] - table["low"], table["high"] - table["rating"]]
        axes.errorbar(table["predicted"], table["rating"], reach, fmt="o-", color=colour, ms=4, lw=1.4)
        place = table["predicted"].iloc[len(table) // 2], table["rating"].iloc[len(table) // 2]
        axes.annotate(label(name), place, (10, -10), textcoords="offset points", color=colour, fontsize=9)
    axes.set(title="Predicted and given ratings", xlabel="predicted, mean stars", ylabel="given, with 95% interval")


def learning_curve_figure(
    curve: pd.DataFrame, title: str, xlabel: str, level: tuple[str, float] | None = None
) -> Figure:
    """NDCG@10 by the size of what a model was given, a line a model: model, size, mean, low, high."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.8))
    draw_lines(axes, curve, "size", "mean", "model", level=level)
    axes.set(title=title, xlabel=xlabel, ylabel="NDCG@10 with 95% interval")
    return figure
