"""Figures of 07_evaluation: who leads, by how much, at what price, and for whom."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_lib.data.catalogue import label
from recsys_lib.evaluation.task import pareto
from recsys_lib.plots.style import COLOURS, INK, MAIN, MUTED

WIDTH = 8.5  # inches: readable where a page is 680 pixels wide


def _intervals(axes: Axes, table: pd.DataFrame, columns: tuple[str, str, str], strong: np.ndarray) -> np.ndarray:
    """A row a model, first on top, as a point with its interval; ``strong`` ones in colour. Returns their heights."""
    middle, low, high = (table[column].to_numpy(float) for column in columns)
    places = np.arange(len(table))[::-1]
    for chosen, colour in ((strong, MAIN), (~strong, MUTED)):
        reach = [(middle - low)[chosen], (high - middle)[chosen]]
        axes.errorbar(middle[chosen], places[chosen], xerr=reach, fmt="o", color=colour, ms=6, elinewidth=2)
    axes.set_yticks(places, [label(name) for name in table["model"]])
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.grid(visible=False, axis="y")
    return places


def _beside(axes: Axes, x: np.ndarray, places: np.ndarray, texts: list[str]) -> None:
    """Write a text to the right of each row."""
    for right, place, text in zip(x, places, texts, strict=True):
        axes.annotate(text, (right, place), (6, 0), textcoords="offset points", va="center", fontsize=9)


def leaderboard_figure(board: pd.DataFrame) -> Figure:
    """Mean of the ranking metric for each model with its interval, best on top."""
    by = board.attrs["by"]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.34 * len(board) + 1.3))
    high = board[by + "_high"]
    places = _intervals(axes, board, (by, by + "_low", by + "_high"), ~board["distinct"].to_numpy(bool))
    _beside(axes, high, places, [f"{value:.3f}" for value in board[by]])
    axes.set(title=f"{label(by)} with 95 % intervals over {int(board['n_users'].iloc[0]):,} users", xlabel=label(by))
    axes.set_xlim(0, float(high.max()) * 1.12 or 1)
    text = "blue: first, or not distinct from it"
    axes.annotate(text, (0.99, 0.04), xycoords="axes fraction", ha="right", color=MAIN, fontsize=9)
    return figure


def forest_figure(board: pd.DataFrame) -> Figure:
    """Paired difference of each model to the best, with interval and Holm-corrected p."""
    by, best, others = board.attrs["by"], board["model"].iloc[0], board.iloc[1:]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.34 * len(others) + 1.6))
    columns = ("difference", "difference_low", "difference_high")
    places = _intervals(axes, others, columns, ~others["distinct"].to_numpy(bool))
    reach = float(others["smallest_difference"].median())
    axes.axvline(0, color=INK, linewidth=1)
    axes.axvspan(-reach, reach, color=COLOURS[4], alpha=0.15, linewidth=0)
    texts = ["p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".") for p in others["p_holm"]]
    _beside(axes, np.maximum(others["difference_high"], 0), places, texts)
    spread = -float(others["difference_low"].min())
    axes.set_xlim(-1.08 * spread, 0.22 * spread)
    axes.set_title(f"Paired difference in {label(by)} to {label(best)}")
    note = f"shaded: differences under {reach:.3f}, found with less than 80 % power"
    axes.set_xlabel(f"with 95 % interval, p after Holm; blue: not distinct\n{note}")
    return figure


def trade_off_figure(board: pd.DataFrame, columns: dict[str, str]) -> Figure:
    """Accuracy against other aims, a panel each; models that nothing beats in both are in colour, and joined.

    Parameters
    ----------
    columns
        Column of the leaderboard: what to call it. Of a name that starts with "-", less is better.
    """
    by = board.attrs["by"]
    figure, panels = plt.subplots(len(columns), 1, figsize=(WIDTH, 3.6 * len(columns)), squeeze=False)
    for axes, (name, title) in zip(panels[:, 0], columns.items(), strict=True):
        column = name.removeprefix("-")
        known = board.loc[board[column].notna(), ["model", column, by]].copy()
        known["_aim"] = -known[column] if name.startswith("-") else known[column]
        on_front = pareto(known, "_aim", by)
        front = known[on_front].sort_values(column)
        axes.plot(front[column], front[by], color=MAIN, linewidth=1, linestyle="--", zorder=1)
        axes.scatter(known[column], known[by], s=36, c=np.where(on_front, MAIN, MUTED), zorder=3)
        if name == "-fit_seconds":
            axes.set_xscale("log")
        axes.margins(x=0.2, y=0.12)
        axes.set(ylabel=label(by))
        axes.set_title(f"Accuracy and {title}" + (", less is better" if name.startswith("-") else ""))
        _name_points(axes, pd.concat([front, known[~on_front]]), column, by, len(front))
    return figure


def _name_points(axes: Axes, table: pd.DataFrame, x: str, y: str, strong: int) -> None:
    """Write a name beside each point, on the first side that is free; none where none is."""
    axes.figure.canvas.draw()
    taken = [axes.transData.transform(point) + [[-5, -5], [5, 5]] for point in table[[x, y]].to_numpy(float)[:, None]]
    edge = axes.get_window_extent().get_points()
    sides = [((6, 0), "left", "center"), ((-6, 0), "right", "center")]
    sides += [((0, 7), "center", "bottom"), ((0, -7), "center", "top")]
    sides += [((x, y), ha, va) for x, ha in ((5, "left"), (-5, "right")) for y, va in ((6, "bottom"), (-6, "top"))]
    sides += [((5, 17), "left", "bottom"), ((-5, 17), "right", "bottom"), ((5, -17), "left", "top")]
    for place, (model, *point) in enumerate(table[["model", x, y]].itertuples(index=False)):
        colour = MAIN if place < strong else INK
        for offset, ha, va in sides:
            style = {"textcoords": "offset points", "ha": ha, "va": va, "fontsize": 8.5, "color": colour}
            text = axes.annotate(label(model), point, offset, **style)
            box = text.get_window_extent().get_points()
            free = not any((box[0] < other[1]).all() and (other[0] < box[1]).all() for other in taken)
            if free and (box[0] > edge[0]).all() and (box[1] < edge[1]).all():
                taken.append(box)
                break
            text.remove()


def segments_figure(table: pd.DataFrame, models: list[str], title: str) -> Figure:
    """Means with intervals by group of users or items, a panel a segment, a colour a model."""
    segments = table["segment"].unique()
    columns = min(2, len(segments))
    lines = int(np.ceil(len(segments) / columns))
    figure, panels = plt.subplots(lines, columns, figsize=(WIDTH, 2.9 * lines + 0.6), squeeze=False, sharex=True)
    for axes, segment in zip(panels.ravel(), segments, strict=False):
        part = table[table["segment"] == segment]
        groups = part["group"].unique()[::-1]
        for shift, model, colour in zip(np.linspace(0.25, -0.25, len(models)), models, COLOURS, strict=False):
            own = part[part["model"] == model].set_index("group").reindex(groups)
            reach = [own["mean"] - own["low"], own["high"] - own["mean"]]
            axes.errorbar(own["mean"], np.arange(len(groups)) + shift, xerr=reach, fmt="o", color=colour, ms=4)
        axes.set_yticks(np.arange(len(groups)), groups)
        axes.set_ylim(-0.6, len(groups) - 0.4)
        axes.set_title(label(segment))
        axes.tick_params(labelbottom=True)
        axes.grid(visible=False, axis="y")
    for axes in panels.ravel()[len(segments) :]:
        axes.set_visible(False)
    handles = [plt.Line2D([], [], color=colour, marker="o") for _, colour in zip(models, COLOURS, strict=False)]
    figure.legend(handles, map(label, models), loc="outside lower center", ncol=min(4, len(models)))
    figure.suptitle(title, x=0.01, ha="left", weight="bold", fontsize=11)
    return figure


def return_visits_figure(table: pd.DataFrame, models: list[str], metric: str) -> Figure:
    """A metric on the rest of the sitting and on later visits, a panel each; the best of all models is in colour.

    Parameters
    ----------
    table
        From :func:`recsys_lib.evaluation.return_visits.table`.
    models
        Those shown, in their order.
    """
    visits = table["visit"].unique()
    lines = int(np.ceil(len(visits) / 2))
    size = (WIDTH, lines * (0.3 * len(models) + 1.1) + 0.3)
    figure, panels = plt.subplots(lines, 2, figsize=size, squeeze=False, sharex=True, sharey=True)
    for axes, visit in zip(panels.ravel(), visits, strict=False):
        part = table[table["visit"] == visit].set_index("model", drop=False)
        part = part[part.index.isin(models)].reindex(models)
        best = (part["model"] == table.loc[table["visit"] == visit, "model"].iloc[0]).to_numpy()
        places = _intervals(axes, part, (metric, f"{metric}_low", f"{metric}_high"), best)
        _beside(axes, part[f"{metric}_high"], places, [f"{value:.3f}" for value in part[metric]])
        axes.set_title(f"{visit} ({int(part['n_users'].max()):,} users)")
        axes.tick_params(labelbottom=True)
    for axes in panels.ravel()[len(visits) :]:
        axes.set_visible(False)
    axes.set_xlim(0, float(table[f"{metric}_high"].max()) * 1.2 or 1)
    figure.suptitle(f"{label(metric)} by the pause before the visit", x=0.01, ha="left", weight="bold", fontsize=11)
    return figure


def reliability_figure(tables: dict[str, pd.DataFrame]) -> Figure:
    """Predicted beside given ratings; on the diagonal a prediction means what it says."""
    figure, axes = plt.subplots(figsize=(6.2, 4.6))
    whole = pd.concat(tables.values())
    ends = [whole[["predicted", "low"]].min().min() - 0.1, whole[["predicted", "high"]].max().max() + 0.1]
    axes.plot(ends, ends, color=MUTED, linestyle=":", linewidth=1.2)
    for place, (name, table) in enumerate(tables.items()):
        reach = [table["rating"] - table["low"], table["high"] - table["rating"]]
        style = {"color": COLOURS[place % len(COLOURS)], "ms": 4, "lw": 1.4, "label": label(name)}
        axes.errorbar(table["predicted"], table["rating"], reach, fmt="o-", **style)
    axes.set(title="Reliability of predicted ratings", xlabel="predicted (mean of a tenth of the rows)", ylabel="given")
    axes.legend(loc="upper left")
    return figure


def distribution_figure(per_user: pd.DataFrame, metric: str) -> go.Figure:
    """How a metric is spread over users: the share with at least this value, a line a model.

    Parameters
    ----------
    per_user
        model, and the metric, a row a user and model.
    """
    shown = per_user.assign(model=per_user["model"].map(label))
    figure = px.ecdf(shown, x=metric, color="model", ecdfmode="reversed", color_discrete_sequence=COLOURS)
    figure.update_layout(yaxis_title="share of users with at least this value", yaxis_tickformat=".0%", template="none")
    title = {"title": f"{label(metric)} over users", "xaxis_title": label(metric)}
    return figure.update_layout(**title, height=380, margin={"t": 50, "b": 40})


def learning_curve_figure(curve: pd.DataFrame, metric: str, *, of: str = "history") -> go.Figure:
    """How a metric grows with the length of the "history" shown, or with the number of "users", a line a model."""
    title, axis = {
        "history": ("known ratings", "most recent ratings shown to the model"),
        "users": ("users fitted on", "users whose histories the model was fitted on"),
    }[of]
    figure = go.Figure()
    for place, (model, part) in enumerate(curve.groupby("model", sort=False)):
        reach = {"array": part["high"] - part["mean"], "arrayminus": part["mean"] - part["low"], "thickness": 1}
        line = {"color": COLOURS[place % len(COLOURS)]}
        figure.add_scatter(x=part["size"], y=part["mean"], name=label(str(model)), error_y=reach, line=line)
    figure.update_layout(template="none", height=400, margin={"t": 50, "b": 40}, title=f"{label(metric)} by {title}")
    figure.update_xaxes(type="log", title=axis, tickvals=curve["size"].unique())
    return figure.update_yaxes(title=label(metric), rangemode="tozero")
