"""Figures of the studies that compare splits."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recsys_lib.plots.style import COLOURS


def results_by_split(results: pd.DataFrame, metric: str) -> Figure:
    """Means and intervals of several models, one row a split: split, model, mean, low, high."""
    splits, models = results["split"].unique(), results["model"].unique()
    figure, axes = plt.subplots(figsize=(8, 0.65 * len(splits) + 1.2))
    for number, (model, colour) in enumerate(zip(models, COLOURS, strict=False)):
        rows = results[results["model"] == model].set_index("split").reindex(splits)
        place = np.arange(len(splits)) + 0.2 * (number - (len(models) - 1) / 2)
        spread = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        axes.errorbar(rows["mean"], place, xerr=spread, fmt="o", color=colour, label=model, markersize=5, capsize=2)
    axes.set_yticks(np.arange(len(splits)), splits)
    axes.invert_yaxis()
    axes.set(xlabel=f"{metric}, with 95 % intervals", xlim=(0, None), title="The same models on each split")
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper right", ncols=len(models))
    return figure


def results_in_time(results: pd.DataFrame, metric: str) -> Figure:
    """Means and intervals of several models after each cut in time: cut, model, mean, low, high."""
    figure, axes = plt.subplots(figsize=(8, 3.2))
    for (model, rows), colour in zip(results.groupby("model", sort=False), COLOURS, strict=False):
        axes.plot(rows["cut"], rows["mean"], marker="o", color=colour, label=model)
        axes.fill_between(rows["cut"], rows["low"], rows["high"], color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="share of the interactions before the cut", ylabel=metric, ylim=(0, None))
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title("After each cut in time: users with a history")
    figure.legend(loc="outside upper right", ncols=4)
    return figure
