"""Figures of the division into train, validation and test, and of the features."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine

from recsys_lib.data.splits import Split
from recsys_lib.plots.style import ACCENT, COLOURS, MAIN

PARTS = {"train": ("train", MAIN), "valid": ("validation", COLOURS[1]), "test": ("test", ACCENT)}


def parts_in_time(split: Split, bins: int = 60) -> Figure:
    """Interactions in time, coloured by part; by interactions of a person where there is no time."""
    figure, axes = plt.subplots(figsize=(9, 3.4))
    labels, colours = zip(*PARTS.values(), strict=True)
    tables = [getattr(split, part) for part in PARTS]
    timed = "timestamp" in split.train
    if timed:
        values = [table["timestamp"].to_numpy() / 86_400 for table in tables]  # days since 1970, as matplotlib counts
        axes.xaxis_date()
    else:
        values = [table["user_id"].value_counts().to_numpy() for table in tables]
    edges = np.histogram_bin_edges(np.concatenate(values), bins=bins)
    axes.hist(values, bins=edges, stacked=True, color=colours, label=labels, linewidth=0)
    axes.set(xlabel="" if timed else "interactions of a user", ylabel="interactions" if timed else "users")
    axes.set_title(f"{split.name}: where the three parts lie" + (" in time" if timed else ""))
    axes.grid(visible=False, axis="x")
    axes.legend()
    return figure


def feature_distributions(train: pd.DataFrame, later: pd.DataFrame, names: list[str], columns: int = 5) -> Figure:
    """Small multiples: each number's distribution in training rows and in validation rows, from 1 % to 99 %."""
    rows = max(1, -(-len(names) // columns))
    height = 1.25 * rows + 0.5
    # A fixed grid: searching a layout for so many axes takes seconds. An engine that does nothing, and not none at all:
    # that would be taken for the style's own as soon as a notebook has shown the figure.
    fixed = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
    place = {
        "left": 0.01,
        "right": 0.99,
        "top": 1 - 0.6 / height,
        "bottom": 0.25 / height,
        "hspace": 0.75,
        "wspace": 0.08,
    }
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.1 * columns, height), squeeze=False, layout=fixed, gridspec_kw=place
    )
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        low, high = train[name].quantile([0.01, 0.99])
        edges = np.linspace(low, high if high > low else low + 1, 25)
        for table, (label, colour) in ((train, PARTS["train"]), (later, PARTS["valid"])):
            values = table.loc[table[name].between(low, high), name]
            weights = np.full(len(values), 1 / max(1, len(values)))
            axes.hist(values, edges, weights=weights, histtype="step", color=colour, label=label, linewidth=1.4)
        axes.set_title(name, fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        axes.grid(visible=False)
        sns.despine(ax=axes, left=True)
    handles = [plt.Line2D([], [], color=colour, label=label) for label, colour in (PARTS["train"], PARTS["valid"])]
    figure.legend(handles=handles, loc="upper right", ncols=2)
    return figure


def results_by_split(results: pd.DataFrame, metric: str) -> Figure:
    """Means and intervals of several models on several splits, one row a split.

    Parameters
    ----------
    results
        split, model, mean, low, high.
    metric
        Name of what is on the axis.
    """
    ways, models = results["split"].unique(), results["model"].unique()
    figure, axes = plt.subplots(figsize=(8, 0.65 * len(ways) + 1.2))
    for number, (model, colour) in enumerate(zip(models, COLOURS, strict=False)):
        rows = results[results["model"] == model].set_index("split").reindex(ways)
        place = np.arange(len(ways)) + 0.2 * (number - (len(models) - 1) / 2)
        spread = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        axes.errorbar(rows["mean"], place, xerr=spread, fmt="o", color=colour, label=model, markersize=5, capsize=2)
    axes.set_yticks(np.arange(len(ways)), ways)
    axes.invert_yaxis()
    axes.set(xlabel=f"{metric}, with 95 % intervals", xlim=(0, None))
    axes.grid(visible=False, axis="y")
    axes.set_title("The same models on each split")
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
