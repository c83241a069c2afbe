"""Figures of the studies that compare splits."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recsys_lib.data.catalogue import label
from recsys_lib.plots.style import COLOURS, WIDTH, draw_lines


def results_by_split(results: pd.DataFrame, metric: str) -> Figure:
    """Means and intervals of several models, one row a split: split, model, mean, low, high."""
    splits, models = results["split"].unique(), results["model"].unique()
    figure, axes = plt.subplots(figsize=(WIDTH, 0.65 * len(splits) + 1.2))
    for number, (model, colour) in enumerate(zip(models, COLOURS, strict=False)):
        rows = results[results["model"] == model].set_index("split").reindex(splits)
        place = np.arange(len(splits)) + 0.2 * (number - (len(models) - 1) / 2)
        axes.hlines(place, rows["low"], rows["high"], colors=colour, linewidth=2)
        axes.plot(rows["mean"], place, "o", color=colour, ms=5)
        style = {"textcoords": "offset points", "va": "center", "color": colour, "fontsize": 9}
        axes.annotate(label(model), (rows["high"].iloc[0], place[0]), (6, 0), **style)
    axes.set_yticks(np.arange(len(splits)), [label(split) for split in splits])
    axes.invert_yaxis()
    axes.set(xlabel=f"{metric}, with 95% intervals", xlim=(0, None), title="The same models on each split")
    axes.grid(visible=False, axis="y")
    return figure


def results_in_time(results: pd.DataFrame, metric: str) -> Figure:
    """Means and intervals of several models after each cut in time: cut, model, mean, low, high."""
    figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
    draw_lines(axes, results, "cut", "mean", "model")
    axes.set_xticks(axes.get_xticks(), [f"{cut:.0%}" for cut in np.sort(results["cut"].unique())])
    axes.set(xlabel="share of the interactions before the cut", ylabel=f"{metric} with 95% interval")
    axes.set_title("After each cut in time: users with a history")
    return figure
