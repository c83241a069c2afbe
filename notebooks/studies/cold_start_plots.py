"""Figures of the study of cold start: how much a model makes of the first few films of a new user."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_lib.plots.style import MUTED, WIDTH, draw_lines


def _whole_last(table: pd.DataFrame) -> pd.DataFrame:
    """The whole history, whose size is -1 in the tables, as the largest."""
    return table.assign(size=table["size"].where(table["size"] >= 0, np.inf))


def _lines(axes: Axes, table: pd.DataFrame, by: str, level: tuple[str, float] | None = None) -> None:
    """A line a name, with intervals."""
    draw_lines(axes, _whole_last(table), "size", "mean", by, level=level)
    axes.set_xticks(axes.get_xticks(), [text.get_text().replace("inf", "all") for text in axes.get_xticklabels()])
    axes.set(xlabel="films of theirs that the model was shown", ylabel="NDCG@10 with 95% interval")


def new_users_figure(table: pd.DataFrame, named: list[str], title: str) -> Figure:
    """Accuracy with 95% intervals by the number of films that a model was shown, one way to choose them.

    Parameters
    ----------
    table
        From :func:`recsys_lib.evaluation.new_users.curve`.
    named
        Models with a colour, at most seven; the others stay grey.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 4.8))
    for _, own in _whole_last(table[~table["model"].isin(named)]).groupby("model"):
        axes.plot(range(len(own)), own.sort_values("size")["mean"], color=MUTED, lw=0.8, alpha=0.5)
    chosen = table[table["model"].isin(named)]
    _lines(axes, chosen.sort_values("model", key=lambda names: names.map(named.index), kind="stable"), "model")
    axes.set_title(f"{title} ({int(table['n_users'].min()):,} users, the same at every point)")
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
    figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
    whole, parts = table[table["size"] < 0], table[table["size"] >= 0]
    level = ("the whole history", float(whole["mean"].iloc[0])) if len(whole) else None
    _lines(axes, parts.assign(called=parts["way"].map(ways)), "called", level)
    axes.set_title(title)
    return figure
