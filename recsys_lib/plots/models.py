"""Figures of single models: what a parameter changes, which films are alike."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from recsys_lib.data.catalogue import label, readable_title
from recsys_lib.plots.style import COLOURS, MUTED, WIDTH, draw_lines

NAMED = 14  # films of a map, at most


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
    note = "bars: 95% interval of the paired difference to the best (dotted)"
    axes.set(title=title, xlabel=f"{label(x)}\n{note}", ylabel="NDCG@10 on validation")
    return figure


def film_map(vectors: np.ndarray) -> np.ndarray:
    """Two coordinates for each film that keep most of what the directions of its vector say, (n, 2).

    The first two principal components of vectors of unit length.
    """
    return PCA(2, svd_solver="full").fit_transform(normalize(vectors.astype(np.float64)))


def map_figure(films: pd.DataFrame) -> go.Figure:
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
    for film in films[_apart(films[["x", "y"]].to_numpy())].itertuples():
        figure.add_annotation(
            x=film.x, y=film.y, text=readable_title(film.title)[:28], showarrow=False, yshift=11, font={"size": 12}
        )
    axes = {"xaxis_title": "first component", "yaxis_title": "second component"}
    legend = {"orientation": "h", "y": -0.14, "title": ""}
    return figure.update_layout(template="plotly_white", height=560, margin={"t": 20, "b": 40}, legend=legend, **axes)


def _apart(points: np.ndarray) -> np.ndarray:
    """Mask of up to ``NAMED`` points, first come first served, whose titles will not stand on each other."""
    extent = np.maximum(np.ptp(points, axis=0), 1e-12)
    gap = np.abs((points[:, None] - points[None]) / extent)
    near = (gap[..., 0] < 0.3) & (gap[..., 1] < 0.04)
    taken = np.zeros(len(points), dtype=bool)
    for place in range(len(points)):
        taken[place] = taken.sum() < NAMED and not near[place, taken].any()
    return taken
