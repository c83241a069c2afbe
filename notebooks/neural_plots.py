"""Figures of 06: the nets, how they learn and err, and what they lean on."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_lib.data.catalogue import feature_label, label
from recsys_lib.plots.evaluation import draw_reliability
from recsys_lib.plots.style import ACCENT, COLOURS, INK, MAIN, MUTED, WIDTH, draw_rows, grid_of

Box = tuple[float, float, str, str]  # centre x and y, text, colour


def _boxes(axes: Axes, title: str, boxes: dict[str, Box], arrows: str) -> None:
    """Draw named boxes and the arrows "from>to" between them."""
    drawn = {}
    for name, (x, y, text, colour) in boxes.items():
        style = {"boxstyle": "round,pad=0.5", "fc": colour + "22", "ec": colour, "lw": 1.3}
        drawn[name] = axes.text(x, y, text, ha="center", va="center", fontsize=8.5, color=INK, bbox=style)
    xs, ys = zip(*(box[:2] for box in boxes.values()), strict=True)
    axes.set(xlim=(min(xs) - 0.7, max(xs) + 0.7), ylim=(min(ys) - 0.6, max(ys) + 0.6), title=title)
    for start, end in (arrow.split(">") for arrow in arrows.split()):
        ends = {"patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch()}
        line = {"arrowstyle": "-|>", "color": MUTED, "lw": 1.1, **ends}
        axes.annotate("", boxes[end][:2], boxes[start][:2], arrowprops=line)
    axes.axis("off")


def diagram_figure(dim: int, hidden: tuple[int, ...], heads: int, ranker_dim: int) -> Figure:
    """Both nets as boxes and arrows: what goes in on the left, the score on the right."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(WIDTH, 6.4), height_ratios=(1.2, 1))
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
    arrows = "rated>u user>u item>v raters>v u>mlp v>mlp dense>mlp u>dot v>dot dense>linear mlp>score dot>score"
    _boxes(top, "The hybrid: how many stars?", hybrid, f"{arrows} linear>score")
    ranker = {
        "history": (0, 1, "history: item, rating,\nhow long ago", blue),
        "context": (0, 0, "length, month,\ndemographics", green),
        "pooled": (1.6, 1, f"{heads} pooled sums ({ranker_dim} each),\neach forgets at its own pace", blue),
        "net": (3.2, 0.5, "layer norm, GELU layer,\nlinear skip", red),
        "items": (3.2, -0.5, "all items: embedding,\ngenres, decade, bias", orange),
        "score": (4.8, 0.5, "product with each item,\nsoftmax over unseen items", INK),
    }
    _boxes(bottom, "The ranker: what next?", ranker, "history>pooled pooled>net context>net net>score items>score")
    return figure


def curves_figure(log: pd.DataFrame, title: str, *, loss: str = "training loss", valid: str = "RMSE") -> Figure:
    """Training loss, value on validation and, where it changes, learning rate by epoch, one panel each.

    ``log`` has epoch, loss, lr and valid (may be missing throughout); ``loss`` and ``valid`` name the first two.
    """
    log = log.set_index("epoch").assign(valid=pd.to_numeric(log["valid"]).to_numpy())
    columns = {"loss": (loss, MUTED)}
    columns |= {"valid": (f"{valid} on validation", MAIN)} if log["valid"].notna().any() else {}
    columns |= {"lr": ("learning rate", COLOURS[2])} if log["lr"].nunique() > 1 else {}
    figure, axes = grid_of(len(columns), 3.0, columns=3)
    for panel, (column, (name, colour)) in zip(axes, columns.items(), strict=True):
        panel.plot(log[column], color=colour, marker="o" if len(log) < 30 else None, ms=4, lw=1.8)
        panel.set(xlabel="epoch", title=name[:1].upper() + name[1:])
        panel.xaxis.get_major_locator().set_params(integer=True)
        if column == "valid":
            best = log["valid"].idxmin() if valid == "RMSE" else log["valid"].idxmax()
            panel.plot(best, log.loc[best, "valid"], "o", color=ACCENT, ms=7)
            text = f"best: {log.loc[best, 'valid']:.4f}, epoch {best}"
            panel.annotate(text, (0.97, 0.5), xycoords="axes fraction", ha="right", color=ACCENT, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    return figure


def errors_figure(
    judged: pd.DataFrame, bins: pd.DataFrame, ratings: pd.DataFrame, genres: pd.DataFrame, name: str
) -> Figure:
    """Reliability, errors by the rating that was given, and RMSE by genre.

    ``judged`` has rating and error, a row a prediction; ``bins`` is from
    :func:`recsys_lib.evaluation.segments.reliability`, the others from :mod:`neural_tables`; ``genres`` may be
    empty.
    """
    figure, axes = plt.subplot_mosaic([["bins", "genres"], ["errors", "genres"]], figsize=(WIDTH, 6.4))
    draw_reliability(axes["bins"], {name: bins})
    groups = [judged.loc[judged["rating"] == rating, "error"] for rating in ratings["rating"]]
    axes["errors"].axhline(0, color=MUTED, lw=1, ls="--")
    axes["errors"].boxplot(groups, showfliers=False, widths=0.6, medianprops={"color": ACCENT, "lw": 2})
    axes["errors"].set_xticks(range(1, len(groups) + 1), [f"{rating:g}" for rating in ratings["rating"]])
    axes["errors"].set(title="Error by rating", xlabel="rating given", ylabel="predicted - given, stars")
    axes["genres"].set_visible(len(genres) > 0)
    draw_rows(axes["genres"], genres["genre"], genres, "rmse", np.zeros(len(genres), bool))
    axes["genres"].set(title="RMSE by genre", xlabel="stars, with 95% interval")
    return figure


def ablation_figure(table: pd.DataFrame, value: str, title: str) -> Figure:
    """A point a variant, the best on top, with its spread over seeds, against the whole model (the first row).

    ``table`` has variant, ``value`` and spread.
    """
    whole, spread = table[value].iloc[0], pd.to_numeric(table["spread"]).fillna(0)
    table = table.assign(**{f"{value}_low": table[value] - spread, f"{value}_high": table[value] + spread})
    table = table.sort_values(value, ascending=not value.startswith("ndcg"), ignore_index=True)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.31 * len(table) + 1.2))
    axes.axvline(whole, color=MUTED, lw=1.2, ls="--")
    strong, texts = (table["variant"] == "whole").to_numpy(), [f"{each:.4f}" for each in table[value]]
    draw_rows(axes, table["variant"], table, value, strong, texts)
    axes.margins(x=0.14)
    axes.set(title=title, xlabel=f"{label(value)} on validation; bar: spread over seeds, dashed: the whole")
    return figure


def importance_figure(table: pd.DataFrame, most: int = 14) -> Figure:
    """How much the RMSE rises when an input is shuffled: ``table`` has input, rise (stars), rise_low, rise_high."""
    shown = table[table["rise"] > 5e-4].head(most)
    figure, axes = plt.subplots(figsize=(WIDTH, 0.31 * len(shown) + 1.2))
    draw_rows(axes, shown["input"], shown, "rise", np.ones(len(shown), bool))
    axes.axvline(0, color=MUTED, lw=1)
    axes.set(title="What the hybrid leans on", xlabel="rise of the RMSE when shuffled, stars, with 95% interval")
    return figure


def parts_figure(
    parts: pd.DataFrame, titles: pd.Series, title: str, users: pd.DataFrame | None = None, most: int = 10
) -> Figure:
    """The largest contributions to one score as bars, the rest of each part in one bar, all summing to the score.

    ``parts`` is what a neural model's ``parts`` gives, ``titles`` the titles by item id; ``users`` says which numbers a
    fifth of a column holds.
    """
    moves = parts[parts["part"] != "start"]
    named = moves["item_id"].map(titles).astype(object).where(moves["part"] == "history")
    named = named.fillna(moves["reason"].map(lambda reason: feature_label(reason, users)))
    moves = moves.assign(label=named.astype(str).str.slice(0, 40))
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
