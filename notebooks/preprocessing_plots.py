"""Figures of 02: how a data set is divided, and its features."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine

from recsys_lib.data.catalogue import label
from recsys_lib.data.splits import Split
from recsys_lib.plots.style import ACCENT, COLOURS, MAIN, WIDTH

PARTS = {"train": ("train", MAIN), "valid": ("validation", COLOURS[1]), "test": ("test", ACCENT)}


def parts_in_time(split: Split, bins: int = 60) -> Figure:
    """Interactions in time, coloured by part; by interactions of a user where there is no time."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.4))
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
    axes.set_title(f"{label(split.name)} split: where the three parts lie" + (" in time" if timed else ""))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=False, axis="x")
    axes.legend()
    return figure


def feature_distributions(train: pd.DataFrame, later: pd.DataFrame, names: list[str], columns: int = 3) -> Figure:
    """Small multiples: each number's distribution in training rows and in validation rows, from 1% to 99%."""
    rows = max(1, -(-len(names) // columns))
    height = 1.25 * rows + 0.5
    # A fixed grid: searching a layout for so many axes takes seconds. An engine that does nothing, and not none at all:
    # that would be taken for the style's own as soon as a notebook has shown the figure.
    fixed = PlaceHolderLayoutEngine(adjust_compatible=True, colorbar_gridspec=True)
    place = {"left": 0.01, "right": 0.99, "top": 1 - 0.6 / height, "bottom": 0.25 / height}
    place |= {"hspace": 0.75, "wspace": 0.08}
    size = (WIDTH, height)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout=fixed, gridspec_kw=place)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        low, high = train[name].quantile([0.01, 0.99])
        edges = np.linspace(low, high if high > low else low + 1, 25)
        for table, (part, colour) in ((train, PARTS["train"]), (later, PARTS["valid"])):
            values = table.loc[table[name].between(low, high), name]
            weights = np.full(len(values), 1 / max(1, len(values)))
            axes.hist(values, edges, weights=weights, histtype="step", color=colour, label=part, linewidth=1.4)
        axes.set_title(name, fontsize=8.5)
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
        axes.grid(visible=False)
        sns.despine(ax=axes, left=True)
    handles = [plt.Line2D([], [], color=colour, label=name) for name, colour in (PARTS["train"], PARTS["valid"])]
    figure.legend(handles=handles, loc="upper right", ncols=2)
    return figure
