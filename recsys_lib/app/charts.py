"""The application's charts, as functions of its choices that return plotly figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from recsys_lib.app.lab import label
from recsys_lib.app.state import App

BLUE = "#3b82b0"
COLOURS = [BLUE, "#c2622d", "#3f8f5f", "#8a63b8", "#b08a2e"]
SHRINKAGE = 5  # ratings at the user's own mean that every genre starts with
MAP_SIZE = 300  # films


def _figure(traces: list[Any], title: str, height: int, **layout: Any) -> go.Figure:
    """A figure without colours of its own: the page's theme gives them."""
    margin = {"l": 10, "r": 16, "t": 40, "b": 40}
    return go.Figure(
        traces,
        {
            "title": {"text": title, "x": 0.02, "xref": "container", "font": {"size": 15}},
            "template": "none",
            "height": height,
            "margin": margin,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, sans-serif", "size": 13},
            "xaxis": {"automargin": True, "zeroline": False},
            "yaxis": {"automargin": True, "zeroline": False},
            "legend": {"orientation": "h", "y": -0.18},
            **layout,
        },
    )


def genres(app: App) -> go.Figure:
    """Genres by how much the user likes them: the mean rating, drawn to the user's own mean where ratings are few."""
    lab, history = app.lab, app.lab.history_of(app.user)
    has = lab.genre_matrix[lab.known.item_codes(history["item_id"])]
    counts, ratings = has.sum(0), history["rating"].to_numpy(float)
    mean = ratings.mean() if len(ratings) else 0.0
    liked = (ratings @ has + SHRINKAGE * mean) / (counts + SHRINKAGE)
    values = liked - mean if lab.has_ratings else counts
    order = [code for code in np.argsort(-values, kind="stable") if counts[code] > 0]
    order = (order[:6] + order[6:][-3:])[::-1]
    means = ratings @ has / np.maximum(counts, 1)
    text = [
        f"{lab.genres[code]}: {int(counts[code])} films" + (f", mean {means[code]:.2f} ★" if lab.has_ratings else "")
        for code in order
    ]
    names = [f"{lab.genres[code]} ({int(counts[code])})" for code in order]
    bars = go.Bar(
        x=values[order],
        y=names,
        orientation="h",
        hovertext=text,
        hoverinfo="text",
        marker_color=[BLUE if values[code] >= 0 else COLOURS[1] for code in order],
    )
    title = f"Genres, in stars from the mean {mean:.2f}" if lab.has_ratings else "Genres by number of films"
    return _figure([bars], title, 70 + 26 * max(3, len(order)))


def leaderboard(app: App) -> go.Figure:
    """Means and 95 % intervals of one metric."""
    entries = app.lab.ranking(app.metric)[::-1]
    values = [entry["metrics"][app.metric] for entry in entries]
    means = np.array([value["mean"] for value in values])
    ends = [
        (
            value["mean"] if value.get("low") is None else value["low"],
            value["mean"] if value.get("high") is None else value["high"],
        )
        for value in values
    ]
    low, high = np.array(ends).T if ends else (means, means)
    text = [
        f"{label(entry['name'])}: {mean:.3f} ({a:.3f} to {b:.3f})"
        for entry, mean, a, b in zip(entries, means, low, high, strict=True)
    ]
    points = go.Scatter(
        x=means,
        y=[label(entry["name"]) for entry in entries],
        mode="markers",
        marker={"size": 9, "color": BLUE},
        error_x={"array": high - means, "arrayminus": means - low, "symmetric": False, "color": BLUE},
        hovertext=text,
        hoverinfo="text",
    )
    return _figure([points], f"{label(app.metric)}: mean and 95 % interval", 90 + 24 * len(entries))


def trade_offs(app: App) -> go.Figure:
    """One metric against another, a point a model and group of users."""
    traces = []
    for number, (group, models) in enumerate(app.lab.computed["segments"].items()):
        points = {name: means for name, means in models.items() if app.metric in means and app.against in means}
        traces.append(
            go.Scatter(
                x=[means[app.against] for means in points.values()],
                y=[means[app.metric] for means in points.values()],
                name=group,
                mode="markers",
                marker={"size": 10, "color": COLOURS[number % len(COLOURS)], "symbol": number},
                hovertext=[f"{label(name)}, {group}" for name in points],
            )
        )
    axes = {
        "xaxis": {"title": label(app.against), "automargin": True},
        "yaxis": {"title": label(app.metric), "automargin": True},
    }
    return _figure(traces, f"{label(app.metric)} against {label(app.against)}, by length of history", 430, **axes)


def film_map(app: App) -> go.Figure:
    """The best-known films in a plane: near to each other where the same users rated them."""
    lab = app.lab
    pool = np.argsort(-lab.counts, kind="stable")[:MAP_SIZE]
    own = int(lab.known.item_codes([app.similar_to])[0])
    pool = pool if own in pool else np.append(pool, own)
    rated = (lab.known.matrix[:, pool] > 0).astype(np.float32).toarray()
    rated -= rated.mean(axis=1, keepdims=True)
    rated /= np.maximum(np.linalg.norm(rated, axis=0), 1e-9)
    _, vectors = np.linalg.eigh(rated.T @ rated)
    place = vectors[:, [-1, -2]] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])
    mine = pool == own
    traces = [
        go.Scatter(
            x=place[part, 0],
            y=place[part, 1],
            name=name,
            mode="markers",
            marker={"size": size, "color": colour},
            hovertext=[f"{lab.titles[code]} ({lab.years[code]})" for code in pool[part]],
            hoverinfo="text",
        )
        for part, name, size, colour in (
            (~mine, "well-known films", 6, BLUE),
            (mine, str(lab.titles[own]), 14, COLOURS[1]),
        )
    ]
    hidden = {"showticklabels": False, "showgrid": False, "zeroline": False}
    return _figure(traces, "Map of films: neighbours have the same audience", 420, xaxis=hidden, yaxis=hidden)
