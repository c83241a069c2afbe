"""The application's charts, as functions of its choices that return plotly figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from recsys_lib.app.state import App
from recsys_lib.data.catalogue import label

BLUE = "#3b82b0"
COLOURS = [BLUE, "#c2622d", "#3f8f5f", "#8a63b8", "#b08a2e"]
SHRINKAGE = 5  # ratings at the user's own mean that every genre starts with
MAP_SIZE = 300  # films


def _figure(traces: list[Any], title: str, height: int, **layout: Any) -> go.Figure:
    """A figure without colours of its own: the page's theme gives them."""
    base: dict[str, Any] = {"template": "none", "height": height, "margin": {"l": 10, "r": 16, "t": 40, "b": 40}}
    base |= {"title": {"text": title, "x": 0.02, "xref": "container", "font": {"size": 15}}}
    base |= {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "y": -0.18},
    }
    base |= {"font": {"family": "system-ui, sans-serif", "size": 13}}
    base |= {axis: {"automargin": True, "zeroline": False, **layout.get(axis, {})} for axis in ("xaxis", "yaxis")}
    return go.Figure(traces, base)


def genres(app: App) -> go.Figure:
    """Genres by how much the user likes them: the mean rating, drawn to the user's own mean where ratings are few."""
    lab, history = app.lab, app.lab.history_of(app.user)
    has = lab.has_genre[lab.known.item_codes(history["item_id"])]
    counts, ratings = has.sum(0).astype(int), history["rating"].to_numpy(float)
    mean = ratings.mean()
    values = (ratings @ has + SHRINKAGE * mean) / (counts + SHRINKAGE) - mean if lab.has_ratings else counts
    order = [code for code in np.argsort(-values, kind="stable") if counts[code]]
    order = (order[:6] + order[6:][-3:])[::-1]
    means = ratings @ has / np.maximum(counts, 1)
    bars = go.Bar(
        x=values[order],
        y=[f"{lab.genres[code]} ({counts[code]})" for code in order],
        orientation="h",
        hovertext=[
            f"{counts[code]} films" + (f", mean {means[code]:.2f} ★" if lab.has_ratings else "") for code in order
        ],
        hoverinfo="y+text",
        marker_color=[BLUE if values[code] >= 0 else COLOURS[1] for code in order],
    )
    title = f"Genres, in stars from the mean {mean:.2f}" if lab.has_ratings else "Genres by number of films"
    return _figure([bars], title, 70 + 26 * max(3, len(order)))


def leaderboard(app: App) -> go.Figure:
    """Means and 95 % intervals of one metric."""
    entries = app.lab.ranking(app.metric)[::-1]
    values = [{"low": None, "high": None, **entry["metrics"][app.metric]} for entry in entries]
    points = go.Scatter(
        x=[value["mean"] for value in values],
        y=[label(entry["name"]) for entry in entries],
        mode="markers",
        marker={"size": 9, "color": BLUE},
        error_x={
            "array": [0 if value["high"] is None else value["high"] - value["mean"] for value in values],
            "arrayminus": [0 if value["low"] is None else value["mean"] - value["low"] for value in values],
            "color": BLUE,
        },
        xhoverformat=".3f",  # the interval stands beside it
    )
    return _figure([points], f"{label(app.metric)}: mean and 95 % interval", 90 + 24 * len(entries))


def trade_offs(app: App) -> go.Figure:
    """One metric against another, a point a model and group of users."""
    traces = []
    for number, (group, models) in enumerate(app.lab.computed["segments"].items()):
        points = {label(name): means for name, means in models.items() if app.metric in means and app.against in means}
        traces.append(
            go.Scatter(
                x=[means[app.against] for means in points.values()],
                y=[means[app.metric] for means in points.values()],
                name=group,
                mode="markers",
                marker={"size": 10, "color": COLOURS[number], "symbol": number},
                hovertext=list(points),
            )
        )
    title = f"{label(app.metric)} against {label(app.against)}, by length of history"
    axes = {"xaxis": {"title": label(app.against)}, "yaxis": {"title": label(app.metric)}}
    return _figure(traces, title, 430, **axes)


def film_map(app: App) -> go.Figure:
    """The best-known films in a plane: near to each other where the same users rated them."""
    lab = app.lab
    own = lab.known.item_codes([app.similar_to])[0]
    pool = lab.best_known[:MAP_SIZE]
    pool = np.append(pool[pool != own], own)
    _, vectors = np.linalg.eigh(lab.alike(pool))
    place = vectors[:, [-1, -2]] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])
    names = lab.films["label"].iloc[pool].tolist()
    style = {"mode": "markers", "hoverinfo": "text"}
    traces = [
        go.Scatter(
            x=place[:-1, 0], y=place[:-1, 1], name="well-known films", hovertext=names, marker_color=BLUE, **style
        ),
        go.Scatter(x=place[-1:, 0], y=place[-1:, 1], name=names[-1], hovertext=names[-1:], marker_size=14, **style),
    ]
    traces[1].marker.color = COLOURS[1]
    hidden = {"showticklabels": False, "showgrid": False}
    return _figure(traces, "Map of films: neighbours have the same audience", 420, xaxis=hidden, yaxis=hidden)
