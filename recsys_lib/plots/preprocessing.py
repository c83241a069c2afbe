"""Figures of the division into train, validation and test."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from recsys_lib.splits import Split

PARTS = ("train", "valid", "test")
LABELS = {"train": "train", "valid": "validation", "test": "test"}
COLOURS = {"train": "#4C78A8", "valid": "#F2A541", "test": "#D1495B"}


def parts_in_time(split: Split, bins: int = 60) -> Figure:
    """Interactions in time, coloured by part; by length of history where there is no time."""
    timed = "timestamp" in split.train
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    if timed:
        values = [getattr(split, part)["timestamp"].to_numpy().astype("datetime64[s]") for part in PARTS]
        values = [part.astype("datetime64[m]").astype(float) / (60 * 24) for part in values]  # days, as matplotlib has
        axes.xaxis_date()
    else:
        values = [getattr(split, part).groupby("user_id").size().to_numpy() for part in PARTS]
    edges = np.histogram_bin_edges(np.concatenate(values), bins=bins)
    colours, labels = [COLOURS[part] for part in PARTS], [LABELS[part] for part in PARTS]
    axes.hist(values, bins=edges, stacked=True, color=colours, label=labels)
    axes.set(xlabel="" if timed else "interactions of a person", ylabel="interactions" if timed else "people")
    axes.set_title(f"Where the parts of {split.name} lie" + (" in time" if timed else ""), loc="left")
    axes.legend(frameon=False)
    sns.despine(figure)
    return figure
