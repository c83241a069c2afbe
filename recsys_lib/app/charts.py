"""The application's charts, as functions of its choices that return what plotly draws: traces and layout as a dict.

The page draws them; plotly's Python half would only check them, and costs each session 11 MB.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_lib.app.state import App
from recsys_lib.data.catalogue import label

BLUE = "#3b82b0"
COLOURS = [BLUE, "#c2622d", "#3f8f5f", "#8a63b8", "#b08a2e"]
SHRINKAGE = 5  # ratings at the user's own mean that every genre starts with
MAP_SIZE = 300  # films


def _figure(traces: list[dict[str, Any]], title: str, height: int, **axes: Any) -> dict[str, Any]:
    """A figure without colours of its own: the page's theme gives them."""
    layout: dict[str, Any] = {"height": height, "margin": {"l": 10, "r": 16, "t": 40, "b": 40}}
    layout |= {"title": {"text": title, "x": 0.02, "xref": "container", "font": {"size": 15}}}
    layout |= {"legend": {"orientation": "h", "yref": "container", "y": 0}, "font": {"family": "system-ui", "size": 13}}
    layout |= dict.fromkeys(("paper_bgcolor", "plot_bgcolor"), "rgba(0,0,0,0)")
    for axis in ("xaxis", "yaxis"):
        layout[axis] = {"automargin": True, "zeroline": False, **axes.get(axis, {})}
    return {"data": traces, "layout": layout}


def _points(x: Any, y: Any, names: list[str], **more: Any) -> dict[str, Any]:
    return {"type": "scatter", "mode": "markers", "x": list(x), "y": list(y), "hovertext": names, **more}


def genres(app: App) -> dict[str, Any]:
    """Genres by how much the user likes them: the mean rating, drawn to the user's own mean where ratings are few."""
    lab, history = app.lab, app.lab.history_of(app.user)
    has = lab.has_genre[lab.known.item_codes(history["item_id"])]
    counts, ratings = has.sum(0).astype(int), history["rating"].to_numpy(float)
    mean = ratings.mean()
    values = (ratings @ has + SHRINKAGE * mean) / (counts + SHRINKAGE) - mean if lab.has_ratings else counts
    order = [code for code in np.argsort(-values, kind="stable") if counts[code]]
    order = (order[:6] + order[6:][-3:])[::-1]
    means = ratings @ has / np.maximum(counts, 1)
    bars = {"type": "bar", "orientation": "h", "x": values[order].tolist(), "hoverinfo": "y+text"}
    bars["y"] = [f"{lab.genres[code]} ({counts[code]})" for code in order]
    liked = [f", mean {mean:.2f} ★" if lab.has_ratings else "" for mean in means]
    bars["hovertext"] = [f"{counts[code]} films{liked[code]}" for code in order]
    bars["marker"] = {"color": [BLUE if values[code] >= 0 else COLOURS[1] for code in order]}
    title = f"Genres, in stars from the mean {mean:.2f}" if lab.has_ratings else "Genres by number of films"
    return _figure([bars], title, 70 + 26 * max(3, len(order)))


def leaderboard(app: App) -> dict[str, Any]:
    """Means and 95 % intervals of one metric."""
    rows = app.lab.ranking(app.metric)[::-1]
    means, names = [row["mean"] for row in rows], [row["label"] for row in rows]
    error = {"color": BLUE, "symmetric": False}
    error["array"] = [0 if row["high"] is None else row["high"] - row["mean"] for row in rows]
    error["arrayminus"] = [0 if row["low"] is None else row["mean"] - row["low"] for row in rows]
    points = _points(means, names, names, marker={"size": 9, "color": BLUE}, error_x=error, xhoverformat=".3f")
    return _figure([points], f"{label(app.metric)}: mean and 95 % interval", 90 + 24 * len(rows))


def trade_offs(app: App) -> dict[str, Any]:
    """One metric against another, a point a model and group of users; some metrics are known of all users alone."""
    everybody = {}
    for metric in (app.metric, app.against):
        for row in app.lab.ranking(metric):
            everybody.setdefault(row["name"], {})[metric] = row["mean"]
    traces = []
    for number, (group, models) in enumerate({"all users": everybody, **app.lab.computed["segments"]}.items()):
        known = {label(name): means for name, means in models.items() if {app.metric, app.against} <= {*means}}
        x, y = ([means[metric] for means in known.values()] for metric in (app.against, app.metric))
        marker = {"size": 10, "color": COLOURS[number], "symbol": number}
        traces.append(_points(x, y, list(known), name=group, marker=marker))
    axes = {"xaxis": {"title": {"text": label(app.against)}}, "yaxis": {"title": {"text": label(app.metric)}}}
    return _figure(traces, f"{label(app.metric)} against {label(app.against)}", 430, **axes)


def film_map(app: App) -> dict[str, Any]:
    """The best-known films in a plane: near to each other where the same users rated them."""
    lab = app.lab
    own = lab.known.item_codes([app.similar_to])[0]
    pool = lab.best_known[:MAP_SIZE]
    pool = np.append(pool[pool != own], own)
    _, vectors = np.linalg.eigh(lab.alike(pool))
    x, y = (vectors[:, [-1, -2]] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])).T.tolist()
    names, style = lab.films["label"].iloc[pool].tolist(), {"hoverinfo": "text"}
    others = _points(x[:-1], y[:-1], names[:-1], name="well-known films", marker={"color": BLUE}, **style)
    this = _points(x[-1:], y[-1:], names[-1:], name=names[-1], marker={"color": COLOURS[1], "size": 14}, **style)
    axes = dict.fromkeys(("xaxis", "yaxis"), {"showticklabels": False, "showgrid": False})
    return _figure([others, this], "Map of films: neighbours have the same audience", 420, **axes)
