"""Figures of 03, 04 and 05: what a parameter changes, which films are alike, what tuning found."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from matplotlib.figure import Figure

from recsys_lib.data.catalogue import label
from recsys_lib.plots.style import ACCENT, COLOURS, INK, MAIN, MUTED


def bars_figure(table: pd.DataFrame, title: str, *, value: str = "ndcg@10", reference: str | None = None) -> Figure:
    """Horizontal bars in the order given, with values; ``reference`` names the bar whose height is drawn through.

    Parameters
    ----------
    table
        ``model`` and the column ``value``.
    """
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(table) + 1.2))
    places = np.arange(len(table))[::-1]
    best = table[value].to_numpy() == table[value].max()
    bars = axes.barh(places, table[value], color=np.where(best, MAIN, "#b8c4ce"), height=0.68)
    axes.bar_label(bars, fmt="%.3f", padding=4, fontsize=9)
    if reference is not None:
        level = float(table.loc[table["model"] == reference, value].iloc[0])
        axes.axvline(level, color=ACCENT, linewidth=1.2, linestyle="--")
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(reference, (level, 1), (3, 2), **place, color=ACCENT, fontsize=9)
    axes.set_yticks(places, table["model"])
    axes.set_xlabel(f"{label(value)} on validation")
    axes.set_title(title, pad=16 if reference is not None else 8)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, float(np.nan_to_num(table[value].max())) * 1.1 or 1)  # nothing was held out: no bars
    return figure


def sweep_figure(
    table: pd.DataFrame,
    x: str,
    title: str,
    *,
    value: str = "ndcg@10",
    by: str | None = None,
    log: bool = False,
    level: tuple[str, float] | None = None,
) -> Figure:
    """How a metric moves with one parameter, a line a kind; ``level`` is a name and a height to compare with."""
    figure, axes = plt.subplots(figsize=(7.2, 3.8))
    parts = [("", table)] if by is None else list(table.groupby(by, sort=False))
    for place, (name, part) in enumerate(parts):
        part = part.sort_values(x)
        axes.plot(part[x], part[value], "o-", color=COLOURS[place % len(COLOURS)], ms=5, lw=1.6, label=str(name))
    if level is not None:
        axes.axhline(level[1], color=INK, linewidth=1, linestyle="--")
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(level[0], (1, level[1]), (-4, 4), **place, ha="right", fontsize=9)
    if log:
        ticks = sorted(table[x].unique())
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.set(title=title, xlabel=x.replace("_", " "), ylabel=f"{label(value)} on validation")
    if by is not None:
        axes.legend(title=by.replace("_", " "))
    return figure


def film_map(vectors: np.ndarray) -> np.ndarray:
    """Two coordinates for each film that keep most of what the directions of its vector say, (n, 2).

    The first two principal components of vectors of unit length.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros_like(vectors, dtype=np.float64), where=lengths > 0)
    unit -= unit.mean(axis=0)
    left, values, _ = np.linalg.svd(unit, full_matrices=False)
    return (left * values)[:, :2]


def map_figure(films: pd.DataFrame, named: int = 16) -> Figure:
    """Films on a map, coloured by genre, the best known ones with their titles.

    Parameters
    ----------
    films
        x, y, title, genre, count; one row a film.
    """
    figure, axes = plt.subplots(figsize=(8.5, 6))
    shown = films["genre"].value_counts().index[: len(COLOURS) - 1].tolist()
    for place, genre in enumerate([*shown, "other"]):
        part = films[films["genre"] == genre] if genre != "other" else films[~films["genre"].isin(shown)]
        colour = MUTED if genre == "other" else COLOURS[place]
        size = 6 + 60 * part["count"] / films["count"].max()
        axes.scatter(part["x"], part["y"], s=size, color=colour, alpha=0.6, linewidth=0, label=genre)
    best_known = films.sort_values("count", ascending=False)
    for film in best_known[_apart(best_known[["x", "y"]].to_numpy(), named)].itertuples():
        axes.annotate(film.title[:28], (film.x, film.y), (4, 2), textcoords="offset points", fontsize=8)
    axes.set(title="Films by the direction of their factors", xlabel="first component", ylabel="second component")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncol=8, markerscale=1.2)
    return figure


def _apart(points: np.ndarray, most: int) -> np.ndarray:
    """Mask of up to ``most`` points, first come first served, whose titles will not stand on each other."""
    extent = np.maximum(np.ptp(points, axis=0), 1e-12)
    gap = np.abs((points[:, None] - points[None]) / extent)
    near = (gap[..., 0] < 0.2) & (gap[..., 1] < 0.035)
    taken = np.zeros(len(points), dtype=bool)
    for place in range(len(points)):
        taken[place] = taken.sum() < most and not near[place, taken].any()
    return taken


def map_to_explore(films: pd.DataFrame) -> go.Figure:
    """The map of :func:`map_figure`, with titles where the pointer is."""
    look = {"color_discrete_sequence": COLOURS, "size_max": 18, "opacity": 0.7}
    figure = px.scatter(films, x="x", y="y", color="genre", size="count", hover_name="title", **look)
    figure.update_layout(template="none", height=520, margin={"t": 30, "b": 40}, xaxis_title="", yaxis_title="")
    return figure


def tuning_figure(trials: pd.DataFrame, importance: pd.DataFrame) -> Figure:
    """What a search found: every trial of each model, and how much each parameter mattered.

    Parameters
    ----------
    trials
        model, value; one row a trial.
    importance
        model, parameter, importance (shares that add up to 1 for each model).
    """
    models = trials["model"].unique().tolist()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.62 * len(models) + 1.6), width_ratios=[1.1, 1])
    rng = np.random.default_rng(0)
    for place, model in enumerate(models):
        values = trials.loc[trials["model"] == model, "value"]
        row = len(models) - 1 - place
        left.scatter(values, row + rng.uniform(-0.25, 0.25, len(values)), s=12, color=MAIN, alpha=0.45, linewidth=0)
        left.plot([values.max()] * 2, [row - 0.35, row + 0.35], color=ACCENT, linewidth=2)
        start = 0.0
        part = importance[importance["model"] == model].sort_values("importance", ascending=False)
        for shade, (name, share) in enumerate(part[["parameter", "importance"]].itertuples(index=False)):
            right.barh(row, share, left=start, color=COLOURS[shade % len(COLOURS)], alpha=0.75, height=0.6)
            if share > 0.09:
                text = name.replace("_", "\n") if share < 0.2 else name
                right.annotate(text, (start + share / 2, row), ha="center", va="center", fontsize=7.5)
            start += share
    left.set_yticks(range(len(models)), [label(model) for model in models[::-1]])
    left.set(title="Every trial (the best one marked)", xlabel="NDCG@10 on validation")
    right.set_yticks(range(len(models)), [])
    right.set(title="What mattered", xlabel="share of the spread explained", xlim=(0, 1))
    right.grid(visible=False)
    left.grid(visible=False, axis="y")
    return figure
