"""Figures of 06: the nets, how they learn, where they err, what their parts are worth."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from recsys_lib.plots.style import ACCENT, COLOURS, INK, MAIN, MUTED

Box = tuple[float, float, str, str]  # centre x and y, text, colour


def _boxes(axes: Axes, boxes: dict[str, Box], arrows: list[tuple[str, str]], width: float, height: float) -> None:
    """Draw named boxes and arrows between them, left to right."""
    for x, y, text, colour in boxes.values():
        corner = (x - width / 2, y - height / 2)
        patch = FancyBboxPatch(corner, width, height, boxstyle="round,pad=0.02", fc=colour + "22", ec=colour, lw=1.3)
        axes.add_patch(patch)
        axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color=INK)
    for start, end in arrows:
        (x0, y0), (x1, y1) = boxes[start][:2], boxes[end][:2]
        axes.annotate(
            "",
            (x1 - width / 2 - 0.03, y1),
            (x0 + width / 2 + 0.03, y0),
            arrowprops={"arrowstyle": "-|>", "color": MUTED, "lw": 1.1},
        )
    axes.set(xlim=(-0.7, max(box[0] for box in boxes.values()) + 0.7))
    lows, highs = (f(box[1] for box in boxes.values()) for f in (min, max))
    axes.set_ylim(lows - height, highs + height)
    axes.axis("off")


def diagram_figure(dim: int, hidden: tuple[int, ...], heads: int, ranker_dim: int) -> Figure:
    """Both nets as boxes and arrows: what goes in on the left, the score on the right."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(10, 6.4), height_ratios=(1.2, 1))
    blue, orange, green, red = COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[5]
    layers = "-".join(str(width) for width in hidden)
    _boxes(
        top,
        {
            "ph": (0, 3, "items the user rated,\nand how, without this one", blue),
            "pi": (0, 2, "user: ID, demographics", blue),
            "d": (0, 1, "dense features of both\n(means, counts, time, ...)", green),
            "fi": (0, 0, "item: ID, genres, decade", orange),
            "fh": (0, -1, "users who rated it,\nand how, without this one", orange),
            "u": (1.6, 2.5, f"user's vector u\n({dim})", blue),
            "v": (1.6, -0.5, f"item's vector v\n({dim})", orange),
            "mlp": (3.2, 1, f"MLP {layers}\n[u, v, u*v, dense]", red),
            "dot": (3.2, 2.5, "product <u, v>", red),
            "lin": (3.2, -0.5, "linear(dense) + biases", red),
            "out": (4.8, 1, "sum + mean\n= rating in stars", INK),
        },
        [("ph", "u"), ("pi", "u"), ("fi", "v"), ("fh", "v"), ("u", "mlp"), ("v", "mlp"), ("d", "mlp"), ("u", "dot")]
        + [("v", "dot"), ("d", "lin"), ("mlp", "out"), ("dot", "out"), ("lin", "out")],
        1.15,
        0.62,
    )
    top.set_title("The hybrid: how many stars?")
    _boxes(
        bottom,
        {
            "h": (0, 1, "history: item, rating,\nhow long ago", blue),
            "c": (0, 0, "length, month,\ndemographics", green),
            "p": (1.6, 1, f"{heads} pooled sums ({ranker_dim} each),\neach forgets at its own pace", blue),
            "n": (3.2, 0.5, "layer norm, GELU layer,\nlinear skip", red),
            "o": (3.2, -0.5, "all items: embedding,\ngenres, decade, bias", orange),
            "s": (4.8, 0.5, "product with each item,\nsoftmax over unseen items", INK),
        },
        [("h", "p"), ("p", "n"), ("c", "n"), ("n", "s"), ("o", "s")],
        1.15,
        0.55,
    )
    bottom.set_title("The ranker: what next?")
    return figure


def curves_figure(log: pd.DataFrame, title: str, *, loss: str = "training loss", valid: str = "RMSE") -> Figure:
    """Training loss, validation value and learning rate by epoch, one panel each.

    Parameters
    ----------
    log
        epoch, loss, lr, valid (may be missing throughout).
    loss, valid
        What the first two are.
    """
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2))
    columns = [("loss", loss, MUTED), ("valid", f"{valid} where held out", MAIN), ("lr", "learning rate", ACCENT)]
    for panel, (column, label, colour) in zip(axes, columns, strict=True):
        values = pd.to_numeric(log[column])
        panel.plot(log["epoch"], values, color=colour, marker="o" if len(log) < 30 else None, ms=4, lw=1.8)
        panel.set(xlabel="epoch", title=label)
    values = pd.to_numeric(log["valid"])
    if values.notna().any():
        best = values.idxmin() if valid == "RMSE" else values.idxmax()
        axes[1].plot(log["epoch"][best], values[best], "o", color=ACCENT, ms=7)
        place = {
            "xy": (log["epoch"][best], values[best]),
            "xytext": (0, 24 if valid == "RMSE" else -18),
            "textcoords": "offset points",
        }
        axes[1].annotate(f"best {values[best]:.4f}", **place, ha="right" if valid != "RMSE" else "center")
        axes[1].margins(x=0.1, y=0.15)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure


def errors_figure(judged: pd.DataFrame, bins: pd.DataFrame, ratings: pd.DataFrame, genres: pd.DataFrame) -> Figure:
    """Calibration, errors by the rating that was given, and RMSE by genre.

    Parameters
    ----------
    judged
        rating, error; a row a prediction.
    bins, ratings, genres
        As :mod:`recsys_lib.run.neural_study` makes them; ``genres`` may be empty.
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
    """A dot a variant with the spread over seeds, against the whole model (the first row).

    Parameters
    ----------
    table
        variant, ``value``, spread.
    """
    whole = table[value].iloc[0]
    table = table.sort_values(value, ascending=value.startswith("ndcg"), ignore_index=True)
    figure, axes = plt.subplots(figsize=(8, 0.34 * len(table) + 1.2))
    axes.axvline(whole, color=MUTED, lw=1.2, ls="--")
    colours = np.where(table["variant"] == "whole", ACCENT, MAIN)
    spread = pd.to_numeric(table["spread"]).fillna(0)
    places = np.arange(len(table))[::-1] if value == "rmse" else np.arange(len(table))
    axes.errorbar(table[value], places, xerr=spread, fmt="none", ecolor=MUTED, lw=2)
    axes.scatter(table[value], places, color=colours, s=36, zorder=3)
    for place, number, half in zip(places, table[value], spread, strict=True):
        axes.annotate(
            f"{number:.4f}", (number + half, place), (8, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(places, table["variant"])
    axes.margins(x=0.12)
    axes.set(title=title, xlabel=f"{value} on validation (bar: spread over seeds)")
    return figure


def known_films_figure(table: pd.DataFrame, popularity: float) -> Figure:
    """NDCG@10 by how many films of a history the ranker is given, beside popularity.

    Parameters
    ----------
    table
        films, ndcg@10.
    """
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

    Parameters
    ----------
    parts
        part, reason, item_id, contribution, as a neural model's ``parts`` gives them, largest first.
    titles
        Title by item id.
    """
    moves = parts[~parts["part"].isin(["start"])]
    named = moves["item_id"].map(titles).astype(object).where(moves["part"] == "history")
    label = named.fillna(moves["reason"]).astype(str).str.slice(0, 40)
    shown = moves.assign(label=label).head(most)
    rest = moves.iloc[most:].groupby("part")["contribution"].sum()
    table = pd.concat(
        [shown[["part", "label", "contribution"]]]
        + [pd.DataFrame({"part": [p], "label": [f"all else: {p}"], "contribution": [v]}) for p, v in rest.items()]
    ).iloc[::-1]
    colours = dict(zip(("history", "user", "item", "features"), COLOURS, strict=False))
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(table) + 1.2))
    places = np.arange(len(table))
    axes.barh(places, table["contribution"], color=table["part"].map(colours), height=0.65)
    axes.set_yticks(places, table["label"], fontsize=8)
    axes.axvline(0, color=MUTED, lw=1)
    axes.set(title=title, xlabel="contribution to the score")
    axes.grid(visible=False, axis="y")
    for part in table["part"].unique():
        axes.barh([0], [0], color=colours[part], label=part)
    axes.legend(loc="lower right")
    return figure
