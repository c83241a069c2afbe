"""Figures of 07: who leads, by how much, at what price, and for whom."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from matplotlib.figure import Figure

from recsys_lib.data.catalogue import label
from recsys_lib.evaluation.inference import intervals
from recsys_lib.evaluation.task import pareto
from recsys_lib.plots.evaluation import ROW
from recsys_lib.plots.style import COLOURS, INK, MAIN, MUTED, WIDTH, draw_lines, draw_rows, grid_of


def forest_figure(board: pd.DataFrame) -> Figure:
    """Paired difference of each model to the best, with interval and Holm-corrected p."""
    by, best, others = board.attrs["by"], board["model"].iloc[0], board.iloc[1:]
    figure, axes = plt.subplots(figsize=(WIDTH, ROW * len(others) + 1.5))
    draw_rows(axes, others["model"], others, "difference", ~others["distinct"].to_numpy(bool))
    reach = float(np.nan_to_num(others["smallest_difference"].median()))  # unknown of a single user
    axes.axvline(0, color=INK, linewidth=1)
    axes.axvspan(-reach, reach, color=COLOURS[1], alpha=0.15, linewidth=0)
    spread = -float(others["difference_low"].min())
    axes.set_xlim(-1.08 * spread or -0.01, max(1.2 * reach, 0.1 * spread) or 0.01)
    right = axes.secondary_yaxis("right")
    texts = ["p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".") for p in others["p_holm"]]
    right.set_yticks(np.arange(len(others))[::-1], texts)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    axes.set_title(f"Paired difference in {label(by)} to {label(best)}")
    note = f"shaded: differences under {reach:.3f}, found with less than 80% power" if reach else ""
    axes.set_xlabel(f"with 95% interval, p after Holm; blue: not shown to be worse\n{note}")
    return figure


def _aimed(board: pd.DataFrame, name: str) -> tuple[str, np.ndarray]:
    """The column of an aim, and of which models nothing beats in it and in the ranking metric: (n,) bool."""
    column = name.removeprefix("-")
    known = board.assign(_aim=-board[column] if name.startswith("-") else board[column]).dropna(subset="_aim")
    return column, pareto(known, "_aim", board.attrs["by"]).reindex(board.index, fill_value=False).to_numpy(bool)


def trade_off_figure(board: pd.DataFrame, aims: Mapping[str, str]) -> Figure:
    """Accuracy and other aims side by side, a row a model; those that nothing beats in both are in colour.

    ``aims`` has a column of the leaderboard: what to call it. Of a column that starts with "-", less is better.
    """
    by, names = board.attrs["by"], board["model"]
    size = (WIDTH, ROW * len(board) + 1.3)
    figure, panels = plt.subplots(1, 1 + len(aims), figsize=size, sharey=True, width_ratios=[1.2, *[1] * len(aims)])
    draw_rows(panels[0], names, board, by, np.arange(len(board)) == 0)
    panels[0].set_title(label(by))
    for axes, (name, title) in zip(panels[1:], aims.items(), strict=True):
        column, front = _aimed(board, name)
        draw_rows(axes, names, board, column, front)
        axes.set_title(textwrap.fill(title[:1].upper() + title[1:], 16))
        axes.tick_params(axis="y", length=0)
        if name.startswith("-"):
            axes.set(xscale="log", xlabel="less is better")
            axes.xaxis.set_major_formatter("{x:g}")
    figure.supxlabel(f"blue: no model is better in this and in {label(by)}", fontsize=10)
    return figure


def trade_off_to_explore(board: pd.DataFrame, aims: Mapping[str, str]) -> go.Figure:
    """Accuracy against each aim, a panel each (logarithmic where less is better), with the models under the pointer."""
    by, tables = board.attrs["by"], {}
    colours = {"nothing is better in both": MAIN, "another model is": MUTED}
    for name, title in aims.items():
        column, front = _aimed(board, name)
        kind = np.where(front, *colours)
        tables[title] = pd.DataFrame(
            {"model": board["model"].map(label), label(by): board[by], "x": board[column], "front": kind}
        )
    table = pd.concat(tables, names=["aim", None]).reset_index("aim")
    look = {"color": "front", "color_discrete_map": colours, "height": 420}
    figure = px.scatter(table, x="x", y=label(by), hover_name="model", facet_col="aim", **look)
    figure.update_traces(marker_size=10).for_each_annotation(lambda note: note.update(text=note.text.split("=")[-1]))
    figure.update_xaxes(matches=None, title="")
    for place in (place for place, name in enumerate(aims, 1) if name.startswith("-")):
        figure.update_xaxes(type="log", col=place)
    legend = {"orientation": "h", "y": -0.12, "title": ""}
    return figure.update_layout(template="plotly_white", legend=legend)


def return_visits_figure(table: pd.DataFrame, models: list[str], metric: str) -> Figure:
    """A metric on the rest of the sitting and on later visits, a panel each; the best of all models is in colour.

    ``table`` is from :func:`recsys_lib.evaluation.return_visits.table`; ``models`` are those shown, in their order.
    """
    visits = table["visit"].unique()
    figure, panels = grid_of(len(visits), ROW * len(models) + 1, sharex=True, sharey=True)
    for axes, visit in zip(panels, visits, strict=True):
        whole = table[table["visit"] == visit]
        part = whole.set_index("model").reindex(models).reset_index()
        texts = [f"{value:.3f}" for value in part[metric]]
        best = (part["model"] == whole["model"].iloc[0]).to_numpy()
        draw_rows(axes, part["model"], part, metric, best, texts)
        axes.set_title(f"{visit[:1].upper()}{visit[1:]} ({int(part['n_users'].max()):,} users)")
        axes.tick_params(labelbottom=True)
    panels[0].set_xlim(0, float(table[f"{metric}_high"].max()) * 1.2 or 1)
    figure.supxlabel(f"{label(metric)} with 95% interval; blue: the best of all models", fontsize=10)
    return figure


def distribution_figure(per_user: pd.DataFrame, metric: str) -> Figure:
    """How a metric is spread over users: the share with at least this value and its interval, a line a model.

    ``per_user`` has model and the metric, a row a user and model.
    """
    reached = {}
    for model, part in per_user.groupby("model", sort=False):
        values = part[metric].to_numpy()
        shares = {-value: values >= max(value, 1e-9) for value in np.linspace(0, 1, 11)}  # at 0: anything at all
        reached[model] = intervals(pd.DataFrame(shares).astype(float))
    table = pd.concat(reached, names=["model", "value"]).reset_index()
    figure, axes = plt.subplots(figsize=(WIDTH, 3.8))
    draw_lines(axes, table, "value", "mean", "model")
    axes.set_xticks(range(11), [*(f"{value:.1f}" for value in np.linspace(1, 0.1, 10)), "above 0"])
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set(title=f"{label(metric)} over users", xlabel=f"{label(metric)} of at least", ylabel="share of users")
    return figure
