"""Figures of 03 to 06: what a parameter changes, which films are alike, what tuning found, how the nets err."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recsys_lib.data.catalogue import label, readable_title
from recsys_lib.plots.evaluation import draw_reliability
from recsys_lib.plots.style import ACCENT, COLOURS, INK, MAIN, MUTED, WIDTH, draw_lines, draw_rows, grid_of

Box = tuple[float, float, str, str]  # centre x and y, text, colour


def sweep_figure(
    table: pd.DataFrame, x: str, title: str, *, by: str | None = None, level: tuple[str, float] | None = None
) -> Figure:
    """How NDCG@10 on validation moves with one parameter, a line a kind.

    ``table`` is from ``Training.compare``: x, ndcg@10, and the interval of the paired difference to the best row;
    ``level`` is a name and a height to compare with.
    """
    best = table["ndcg@10"].max()
    shown = table.assign(low=best + table["difference_low"], high=best + table["difference_high"], one="")
    figure, axes = plt.subplots(figsize=(WIDTH, 3.8))
    draw_lines(axes, shown, x, "ndcg@10", by or "one", level=level)
    axes.axhline(best, color=MUTED, linewidth=0.8, linestyle=":", zorder=1)
    note = "bars: 95 % interval of the paired difference to the best (dotted)"
    axes.set(title=title, xlabel=f"{label(x)}\n{note}", ylabel="NDCG@10 on validation")
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


def map_figure(films: pd.DataFrame, named: int = 14) -> go.Figure:
    """Films on a map, coloured by genre; the best known ones named, the others where the pointer is.

    ``films`` has x, y, title, genre and count, a row a film.
    """
    films = films.sort_values("count", ascending=False)
    frequent = films["genre"].value_counts().index[: len(COLOURS) - 1].tolist()
    films = films.assign(genre=films["genre"].where(films["genre"].isin(frequent), "other"))
    kinds = [*frequent, *({"other"} & {*films["genre"]})]
    colours = dict(zip(kinds, [*COLOURS[: len(frequent)], MUTED], strict=False))
    look = {"color_discrete_map": colours, "category_orders": {"genre": kinds}, "size_max": 16, "opacity": 0.65}
    figure = px.scatter(films, x="x", y="y", color="genre", size="count", hover_name="title", **look)
    for film in films[_apart(films[["x", "y"]].to_numpy(), named)].itertuples():
        figure.add_annotation(
            x=film.x, y=film.y, text=readable_title(film.title)[:28], showarrow=False, yshift=11, font={"size": 12}
        )
    axes = {"xaxis_title": "first component", "yaxis_title": "second component"}
    legend = {"orientation": "h", "y": -0.14, "title": ""}
    return figure.update_layout(template="plotly_white", height=560, margin={"t": 20, "b": 40}, legend=legend, **axes)


def _apart(points: np.ndarray, most: int) -> np.ndarray:
    """Mask of up to ``most`` points, first come first served, whose titles will not stand on each other."""
    extent = np.maximum(np.ptp(points, axis=0), 1e-12)
    gap = np.abs((points[:, None] - points[None]) / extent)
    near = (gap[..., 0] < 0.3) & (gap[..., 1] < 0.04)
    taken = np.zeros(len(points), dtype=bool)
    for place in range(len(points)):
        taken[place] = taken.sum() < most and not near[place, taken].any()
    return taken


def tuning_figure(trials: pd.DataFrame, importance: pd.DataFrame) -> Figure:
    """What a search found: every trial of each model, and the parameters that mattered most.

    ``trials`` has model and value, a row a trial; ``importance`` has model, parameter and importance (shares that add
    up to 1 for each model).
    """
    models = trials["model"].unique().tolist()[::-1]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6 * len(models) + 1.2))
    for row, model in enumerate(models):
        values = trials.loc[trials["model"] == model, "value"]
        axes.scatter(values, np.full(len(values), row), s=14, color=MAIN, alpha=0.35, linewidth=0)
        axes.plot([values.max()] * 2, [row - 0.25, row + 0.25], color=ACCENT, linewidth=2)
        shares = importance[importance["model"] == model].nlargest(3, "importance") if len(importance) else importance
        text = ", ".join(f"{part.parameter.replace('_', ' ')} {part.importance:.0%}" for part in shares.itertuples())
        axes.annotate(text, (0.01, row + 0.28), xycoords=("axes fraction", "data"), fontsize=8.5, color=MUTED)
    axes.set_yticks(range(len(models)), [label(model) for model in models])
    axes.set(title="Every trial, the best one marked; what explains the spread", xlabel="NDCG@10 on validation")
    axes.set_ylim(-0.4, len(models) - 0.3)
    axes.grid(visible=False, axis="y")
    return figure


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
    :func:`recsys_lib.evaluation.segments.reliability`, the others are of notebooks/neural_tables.py; ``genres`` may be
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
    axes["genres"].set(title="RMSE by genre", xlabel="stars, with 95 % interval")
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
    axes.set(title="What the hybrid leans on", xlabel="rise of the RMSE when shuffled, stars, with 95 % interval")
    return figure


def parts_figure(parts: pd.DataFrame, titles: pd.Series, title: str, most: int = 10) -> Figure:
    """The largest contributions to one score as bars, the rest of each part in one bar, all summing to the score.

    ``parts`` is what a neural model's ``parts`` gives, ``titles`` the titles by item id.
    """
    moves = parts[parts["part"] != "start"]
    named = moves["item_id"].map(titles).astype(object).where(moves["part"] == "history")
    moves = moves.assign(label=named.fillna(moves["reason"]).astype(str).str.replace("_", " ").str.slice(0, 40))
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
