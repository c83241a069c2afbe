"""Figures of 06: the nets, how they learn, where they err, what their parts are worth."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_lib.plots.style import ACCENT, COLOURS, INK, MAIN, MUTED

Box = tuple[float, float, str, str]  # centre x and y, text, colour


def _boxes(axes: Axes, title: str, boxes: dict[str, Box], arrows: list[str]) -> None:
    """Draw named boxes and the arrows "from to" between them."""
    drawn = {}
    for name, (x, y, text, colour) in boxes.items():
        style = {"boxstyle": "round,pad=0.5", "fc": colour + "22", "ec": colour, "lw": 1.3}
        drawn[name] = axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color=INK, bbox=style)
    xs, ys = zip(*(box[:2] for box in boxes.values()), strict=True)
    axes.set(xlim=(min(xs) - 0.7, max(xs) + 0.7), ylim=(min(ys) - 0.6, max(ys) + 0.6), title=title)
    for start, end in map(str.split, arrows):
        ends = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        line = {"arrowstyle": "-|>", "color": MUTED, "lw": 1.1, **ends}
        axes.annotate("", boxes[end][:2], boxes[start][:2], arrowprops=line)
    axes.axis("off")


def diagram_figure(dim: int, hidden: tuple[int, ...], heads: int, ranker_dim: int) -> Figure:
    """Both nets as boxes and arrows: what goes in on the left, the score on the right."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(10, 6.4), height_ratios=(1.2, 1))
    blue, orange, green, red = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[5]
    hybrid = {
        "rated": (0, 3, "items the user rated,\nand how, without this one", blue),
        "user": (0, 2, "user: ID, demographics", blue),
        "dense": (0, 1, "dense features of both\n(means, counts, time, ...)", green),
        "item": (0, 0, "item: ID, genres, decade", orange),
        "raters": (0, -1, "users who rated it,\nand how, without this one", orange),
        "u": (1.6, 2.5, f"user's vector u\n({dim})", blue),
        "v": (1.6, -0.5, f"item's vector v\n({dim})", orange),
        "mlp": (3.2, 1, f"MLP {'-'.join(map(str, hidden))}\n[u, v, u*v, dense]", red),
        "dot": (3.2, 2.5, "product <u, v>", red),
        "linear": (3.2, -0.5, "linear(dense) + biases", red),
        "score": (4.8, 1, "sum + mean\n= rating in stars", INK),
    }
    arrows = [
        "rated u",
        "user u",
        "item v",
        "raters v",
        "u mlp",
        "v mlp",
        "dense mlp",
        "u dot",
        "v dot",
        "dense linear",
    ]
    _boxes(top, "The hybrid: how many stars?", hybrid, [*arrows, "mlp score", "dot score", "linear score"])
    ranker = {
        "history": (0, 1, "history: item, rating,\nhow long ago", blue),
        "context": (0, 0, "length, month,\ndemographics", green),
        "pooled": (1.6, 1, f"{heads} pooled sums ({ranker_dim} each),\neach forgets at its own pace", blue),
        "net": (3.2, 0.5, "layer norm, GELU layer,\nlinear skip", red),
        "items": (3.2, -0.5, "all items: embedding,\ngenres, decade, bias", orange),
        "score": (4.8, 0.5, "product with each item,\nsoftmax over unseen items", INK),
    }
    arrows = ["history pooled", "pooled net", "context net", "net score", "items score"]
    _boxes(bottom, "The ranker: what next?", ranker, arrows)
    return figure


def curves_figure(log: pd.DataFrame, title: str, *, loss: str = "training loss", valid: str = "RMSE") -> Figure:
    """Training loss, validation value and learning rate by epoch, one panel each.

    ``log`` has epoch, loss, lr and valid (may be missing throughout); ``loss`` and ``valid`` name the first two.
    """
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2))
    log = log.set_index("epoch").assign(valid=pd.to_numeric(log["valid"]).to_numpy())
    columns = [("loss", loss, MUTED), ("valid", f"{valid} where held out", MAIN), ("lr", "learning rate", ACCENT)]
    for panel, (column, label, colour) in zip(axes, columns, strict=True):
        panel.plot(log[column], color=colour, marker="o" if len(log) < 30 else None, ms=4, lw=1.8)
        panel.set(xlabel="epoch", title=label)
    if log["valid"].notna().any():
        lower = valid == "RMSE"  # is better
        best = log["valid"].idxmin() if lower else log["valid"].idxmax()
        value = log.loc[best, "valid"]
        place = {
            "xytext": (0, 24 if lower else -18),
            "textcoords": "offset points",
            "ha": "center" if lower else "right",
        }
        axes[1].plot(best, value, "o", color=ACCENT, ms=7)
        axes[1].annotate(f"best {value:.4f}", (best, value), **place)
        axes[1].margins(x=0.1, y=0.15)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def errors_figure(judged: pd.DataFrame, bins: pd.DataFrame, ratings: pd.DataFrame, genres: pd.DataFrame) -> Figure:
    """Calibration, errors by the rating that was given, and RMSE by genre.

    ``judged`` has rating and error, a row a prediction; the others are tables of notebooks/neural_tables.py, ``genres``
    may be empty.
    """
    panels = 3 if len(genres) else 2
    figure, axes = plt.subplots(1, panels, figsize=(4 * panels, 4))
    low, high = bins["predicted"].min() - 0.1, bins["predicted"].max() + 0.1
    axes[0].plot([low, high], [low, high], color=MUTED, lw=1, ls="--")
    bars = [bins["given"] - bins["low"], bins["high"] - bins["given"]]
    axes[0].errorbar(bins["predicted"], bins["given"], yerr=bars, fmt="o", color=MAIN, ms=5, capsize=2)
    axes[0].set(title="Predicted and given", xlabel="mean prediction, stars", ylabel="mean rating, stars")
    groups = [judged.loc[judged["rating"] == rating, "error"] for rating in ratings["rating"]]
    axes[1].axhline(0, color=MUTED, lw=1, ls="--")
    axes[1].boxplot(groups, showfliers=False, widths=0.6, medianprops={"color": ACCENT, "lw": 2})
    axes[1].set_xticks(range(1, len(groups) + 1), [f"{rating:g}" for rating in ratings["rating"]])
    axes[1].set(title="Error by rating", xlabel="rating given", ylabel="predicted - given, stars")
    if len(genres):
        shown = genres.iloc[::-1]
        axes[2].barh(shown["genre"], shown["rmse"], color=MAIN, height=0.65)
        axes[2].set(title="RMSE by genre", xlabel="stars", xlim=(shown["rmse"].min() * 0.9, shown["rmse"].max() * 1.02))
        axes[2].tick_params(axis="y", labelsize=8)
        axes[2].grid(visible=False, axis="y")
    return figure


def ablation_figure(table: pd.DataFrame, value: str, title: str) -> Figure:
    """A dot a variant, the best on top, with its spread over seeds, against the whole model (the first row).

    ``table`` has variant, ``value`` and spread.
    """
    whole = table[value].iloc[0]
    table = table.sort_values(value, ascending=value.startswith("ndcg"), ignore_index=True)
    spread = pd.to_numeric(table["spread"]).fillna(0)
    figure, axes = plt.subplots(figsize=(8, 0.34 * len(table) + 1.2))
    axes.axvline(whole, color=MUTED, lw=1.2, ls="--")
    axes.errorbar(table[value], table.index, xerr=spread, fmt="none", ecolor=MUTED, lw=2)
    axes.scatter(table[value], table.index, color=np.where(table["variant"] == "whole", ACCENT, MAIN), s=36, zorder=3)
    for place, end in enumerate(table[value] + spread):
        text = f"{table[value][place]:.4f}"
        axes.annotate(text, (end, place), (8, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(table.index, table["variant"])
    axes.margins(x=0.12)
    axes.set(title=title, xlabel=f"{value} on validation (bar: spread over seeds)")
    return figure


def known_films_figure(table: pd.DataFrame, popularity: float) -> Figure:
    """NDCG@10 by how many films of a history the ranker is given (``table``: films, ndcg@10), beside popularity."""
    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    places = np.arange(len(table))
    axes.plot(places, table["ndcg@10"], "o-", color=MAIN, lw=1.8)
    axes.axhline(popularity, color=ACCENT, lw=1.2, ls="--")
    axes.annotate("popularity", (places[-1], popularity), (0, 4), textcoords="offset points", ha="right", color=ACCENT)
    axes.set_xticks(places, [f"{count:,}" for count in table["films"]])
    axes.set(title="A new user's first films", xlabel="films of the history given", ylabel="NDCG@10")
    axes.set_ylim(bottom=0)
    return figure


def importance_figure(table: pd.DataFrame, most: int = 14) -> Figure:
    """How much the RMSE rises when an input is shuffled: ``table`` has input, rise (stars)."""
    shown = table[table["rise"] > 5e-4].head(most).iloc[::-1]
    figure, axes = plt.subplots(figsize=(7.4, 0.3 * len(shown) + 1.2))
    axes.barh(shown["input"], shown["rise"], color=MAIN, height=0.65)
    axes.set(title="What the hybrid leans on", xlabel="rise of RMSE when shuffled, stars")
    axes.grid(visible=False, axis="y")
    return figure


def parts_figure(parts: pd.DataFrame, titles: pd.Series, title: str, most: int = 10) -> Figure:
    """The largest contributions to one score as bars, the rest of each part in one bar, all summing to the score.

    ``parts`` is what a neural model's ``parts`` gives, ``titles`` the titles by item id.
    """
    moves = parts[parts["part"] != "start"]
    named = moves["item_id"].map(titles).astype(object).where(moves["part"] == "history")
    moves = moves.assign(label=named.fillna(moves["reason"]).astype(str).str.slice(0, 40))
    rest = moves.iloc[most:].groupby("part", as_index=False)["contribution"].sum()
    table = pd.concat([moves.head(most), rest.assign(label="all else: " + rest["part"])], ignore_index=True)
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(table) + 1.2))
    for part, colour in zip(("history", "user", "item", "features"), COLOURS, strict=False):
        bars = table[table["part"] == part]
        if len(bars):
            axes.barh(bars.index, bars["contribution"], color=colour, height=0.65, label=part)
    axes.set_yticks(table.index, table["label"], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color=MUTED, lw=1)
    axes.set(title=title, xlabel="contribution to the score")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right")
    return figure
