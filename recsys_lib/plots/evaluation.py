"""Figures of 07_evaluation: who leads, by how much, at what price, and for whom."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from matplotlib.figure import Figure

from recsys_lib.evaluation.task import pareto
from recsys_lib.plots.style import COLOURS, INK, MAIN, MUTED

_TITLE = {"x": 0.01, "ha": "left", "weight": "bold", "fontsize": 11}


def _height(rows: int) -> float:
    return 0.34 * rows + 1.3


def leaderboard_figure(board: pd.DataFrame) -> Figure:
    """Mean of the ranking metric for each model with its interval, best on top."""
    by = board.attrs["by"]
    figure, axes = plt.subplots(figsize=(8.5, _height(len(board))))
    places = np.arange(len(board))[::-1]
    reach = [board[by] - board[by + "_low"], board[by + "_high"] - board[by]]
    axes.errorbar(board[by], places, xerr=reach, fmt="none", ecolor=MUTED, elinewidth=2, zorder=2)
    tied = ~board["distinct"].to_numpy(bool)
    axes.scatter(board[by], places, c=np.where(tied, MAIN, MUTED), s=46, zorder=3)
    for place, value, high in zip(places, board[by], board[by + "_high"], strict=True):
        axes.annotate(f"{value:.3f}", (high, place), (6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(places, board["model"])
    axes.set_ylim(-0.6, len(board) - 0.4)
    axes.set(title=f"{by} with 95 % intervals over {int(board['n_users'].iloc[0]):,} users", xlabel=by)
    axes.set_xlim(0, float(board[by + "_high"].max()) * 1.12 or 1)
    axes.grid(visible=False, axis="y")
    text = "blue: first, or not distinct from it"
    axes.annotate(text, (0.99, 0.04), xycoords="axes fraction", ha="right", color=MAIN, fontsize=9)
    return figure


def forest_figure(board: pd.DataFrame) -> Figure:
    """Paired difference of each model to the best, with interval and Holm-corrected p."""
    by, best, others = board.attrs["by"], board["model"].iloc[0], board.iloc[1:]
    figure, axes = plt.subplots(figsize=(8.5, _height(len(others))))
    places = np.arange(len(others))[::-1]
    low, high = others["difference_low"], others["difference_high"]
    for place, left, right, middle, apart in zip(
        places, low, high, others["difference"], others["distinct"], strict=True
    ):
        colour = MUTED if apart else MAIN
        axes.plot([left, right], [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(middle, place, "s", color=colour, markersize=6)
    axes.axvline(0, color=INK, linewidth=1)
    reach = float(others["smallest_difference"].median()) if len(others) else 0.0
    axes.axvspan(-reach, reach, color=COLOURS[4], alpha=0.15, linewidth=0)
    axes.set_yticks(places, others["model"])
    axes.set_ylim(-0.6, len(others) - 0.4)
    axes.grid(visible=False, axis="y")
    for place, p, right in zip(places, others["p_holm"], high, strict=True):
        text = "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")
        axes.annotate(text, (max(right, 0), place), (6, 0), textcoords="offset points", va="center", fontsize=9)
    spread = float(-low.min()) if len(others) else 1.0
    axes.set_xlim(-1.08 * spread, 0.22 * spread)
    title = f"Difference in {by} to {best} (shaded: under 80 % power after Holm)"
    axes.set(title=title, xlabel="paired difference with 95 % interval, p after Holm")
    return figure


def trade_off_figure(board: pd.DataFrame, columns: dict[str, str]) -> Figure:
    """Accuracy against other aims, a panel each; models that nothing beats in both are joined by a line.

    Parameters
    ----------
    columns
        Column of the leaderboard: what to call it. Of a name that starts with "-", less is better.
    """
    by = board.attrs["by"]
    figure, panels = plt.subplots(1, len(columns), figsize=(4.1 * len(columns), 4.4), sharey=True, squeeze=False)
    shapes = ["o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p"]
    for axes, (name, label) in zip(panels[0], columns.items(), strict=True):
        column = name.removeprefix("-")
        known = board.loc[board[column].notna(), ["model", column, by]].copy()
        known["_aim"] = -known[column] if name.startswith("-") else known[column]
        front = known[pareto(known, "_aim", by)].sort_values(column)
        axes.plot(front[column], front[by], color=MUTED, linewidth=1, linestyle="--", zorder=1)
        for place, (row, value) in enumerate(zip(known[column], known[by], strict=True)):
            style = {"color": COLOURS[place % len(COLOURS)], "marker": shapes[place % len(shapes)]}
            axes.scatter(row, value, s=60, zorder=3, label=known["model"].iloc[place], **style)
        axes.set(xlabel=label)
        if name == "-fit_seconds":
            axes.set_xscale("log")
    panels[0, 0].set_ylabel(by)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.suptitle("Accuracy against other aims (dashed: nothing is better in both)", **_TITLE)
    figure.legend(handles, labels, loc="outside lower center", ncol=min(5, len(labels)))
    return figure


def segments_figure(table: pd.DataFrame, models: list[str], title: str) -> Figure:
    """Means with intervals by kind of people or films, a panel a segment, a colour a model."""
    segments = table["segment"].unique()
    columns = min(3, len(segments))
    lines = int(np.ceil(len(segments) / columns))
    figure, panels = plt.subplots(lines, columns, figsize=(4.4 * columns, 3.2 * lines), squeeze=False, sharex=True)
    for axes, segment in zip(panels.ravel(), segments, strict=False):
        part = table[table["segment"] == segment]
        groups = part["group"].unique()[::-1]
        for shift, model in zip(np.linspace(0.22, -0.22, len(models)), models, strict=True):
            own = part[part["model"] == model].set_index("group").reindex(groups)
            reach = [own["mean"] - own["low"], own["high"] - own["mean"]]
            colour = COLOURS[models.index(model) % len(COLOURS)]
            axes.errorbar(own["mean"], np.arange(len(groups)) + shift, xerr=reach, fmt="o", color=colour, ms=4)
        axes.set_yticks(np.arange(len(groups)), groups)
        axes.set_ylim(-0.6, len(groups) - 0.4)
        axes.set_title(segment)
        axes.grid(visible=False, axis="y")
    for axes in panels.ravel()[len(segments) :]:
        axes.set_visible(False)
    handles = [
        plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", linestyle="") for i in range(len(models))
    ]
    figure.legend(handles, models, loc="outside lower center", ncol=min(5, len(models)))
    figure.suptitle(title, **_TITLE)
    return figure


def reliability_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Predicted beside given ratings; on the diagonal a prediction means what it says."""
    figure, axes = plt.subplots(figsize=(6.2, 4.6))
    whole = pd.concat(tables.values())
    ends = [whole[["predicted", "low"]].min().min() - 0.1, whole[["predicted", "high"]].max().max() + 0.1]
    axes.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1.2)
    for place, (name, table) in enumerate(tables.items()):
        reach = [table["rating"] - table["low"], table["high"] - table["rating"]]
        colour = COLOURS[place % len(COLOURS)]
        axes.errorbar(table["predicted"], table["rating"], reach, fmt="o-", color=colour, ms=4, lw=1.4, label=name)
    axes.set(title="Reliability of predicted ratings", xlabel="predicted (mean of a tenth of the rows)", ylabel="given")
    axes.legend(loc="upper left")
    return figure


def distribution_figure(per_user: pd.DataFrame, metric: str) -> go.Figure:
    """How a metric is spread over people: the share of users with at least this value, a line a model.

    Parameters
    ----------
    per_user
        model, and the metric, a row a person and model.
    """
    figure = px.ecdf(per_user, x=metric, color="model", ecdfmode="reversed", color_discrete_sequence=COLOURS)
    figure.update_layout(yaxis_title="share of users with at least this value", yaxis_tickformat=".0%", template="none")
    return figure.update_layout(title=f"{metric} over users", height=380, margin={"t": 50, "b": 40})


def learning_curve_figure(curve: pd.DataFrame, metric: str, *, of: str = "person") -> go.Figure:
    """How a metric grows with what is known ``of`` a "person", or with the "people" known, a line a model."""
    title, axis = {
        "person": ("known ratings", "most recent ratings shown to the model"),
        "people": ("users fitted on", "users whose histories the model was fitted on"),
    }[of]
    figure = go.Figure()
    for place, (model, part) in enumerate(curve.groupby("model", sort=False)):
        reach = {"array": part["high"] - part["mean"], "arrayminus": part["mean"] - part["low"], "thickness": 1}
        line = {"color": COLOURS[place % len(COLOURS)]}
        figure.add_scatter(x=part["size"], y=part["mean"], name=str(model), error_y=reach, line=line)
    figure.update_layout(template="none", height=400, margin={"t": 50, "b": 40}, title=f"{metric} by {title}")
    figure.update_xaxes(type="log", title=axis, tickvals=curve["size"].unique())
    return figure.update_yaxes(title=metric, rangemode="tozero")
