"""The data in a few numbers and figures, and the leaderboard in plain words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.app.lab import LOWER_IS_BETTER, Lab, label
from recsys_lib.app.rendering import day, percent, render
from recsys_lib.app.state import State

MEANINGS = {
    "ndcg": "how near the top the liked films stand; 1 is a perfect list",
    "precision": "share of the list that the person liked",
    "recall": "share of what the person liked that is in the list",
    "hit": "share of people with at least one liked film in the list",
    "mrr": "how early the first liked film comes",
    "map": "how early the liked films come, on the whole",
    "r_precision": "precision of a list as long as what the person liked",
    "auc": "chance that a liked film stands before one that was not met",
    "rmse": "typical error of a predicted rating, in stars; lower is better",
    "mae": "mean error of a predicted rating, in stars; lower is better",
    "coverage": "share of the catalogue that anybody is shown",
    "gini": "how unevenly the films are shown; lower is more even",
    "novelty": "how little known the films shown are",
    "diversity": "how unlike each other the films of one list are",
    "serendipity": "liked films that popularity alone would not have shown",
    "popularity_lift": "how much better known the films shown are than those the person has watched",
    "personalisation": "how unlike each other the lists of different people are",
    "miscalibration": "how far the genres of the list are from the person's own; lower is nearer",
}
PARTS = {  # what the test part of a split is, for people
    "temporal_user": "the last ratings of each person",
    "temporal_global": "everything after one day",
    "random": "ratings drawn at random",
    "leave_one_out": "the last film of each person",
    "canonical_fold": "one of the five parts that came with the data",
}
CAPITALS = ("ndcg", "mrr", "map", "auc", "rmse", "mae")


def measure(name: str) -> str:
    """A measure's name, for people.

    >>> measure("ndcg@10"), measure("r_precision"), measure("ndcg_graded@5")
    ('NDCG@10', 'R precision', 'NDCG graded@5')
    """
    words = [word.upper() if word in CAPITALS else word for word in name.replace("@", "_@").split("_")]
    text = " ".join(words).replace(" @", "@")
    return text[:1].upper() + text[1:]


def results_data(lab: Lab, state: State) -> str:
    """What the data is, in a few numbers and three small figures."""
    split = lab.prepared.split
    every = [split.train, split.valid, split.test]
    n = sum(map(len, every))
    n_users = lab.history.n_users
    n_items = pd.concat([part["item_id"] for part in every]).nunique()
    what = "ratings" if lab.has_ratings else "views"
    numbers = {"people": f"{n_users:,}", "films": f"{n_items:,}", what: f"{n:,}"}
    numbers[f"of all possible {what}"] = percent(n / (n_users * n_items), 1)
    numbers["films in the part the models learn from"] = f"{lab.history.n_items:,}"
    if "timestamp" in split.train:
        seconds = pd.concat([part["timestamp"] for part in every])
        numbers["collected"] = f"{day(seconds.min())} – {day(seconds.max())}"
    popularity = np.sort(lab.history.matrix.getnnz(axis=0))[::-1]
    few = max(1, len(popularity) // 10)
    head = popularity[:few].sum() / popularity.sum()
    lead = (
        f"{n_users:,} people and {n_items:,} films. A tenth of the films has {percent(head)} of all ratings: "
        "the models must find what the rest has to offer."
    )
    figures = [_activity(lab), _tail(popularity, few, head)]
    if lab.has_ratings:
        figures.insert(0, _ratings(pd.concat([part["rating"] for part in every])))
    return render("data", lead=lead, numbers=numbers, figures=figures)


def _figure(title: str, text: str, labels: list[str], values: np.ndarray, unit: str) -> dict[str, Any]:
    top = max(float(values.max()), 1e-9)
    bars = [
        {"label": name, "height": round(88 * value / top, 1), "text": f"{name}: {value:,.0f} {unit}"}
        for name, value in zip(labels, values, strict=True)
    ]
    return {"title": title, "text": text, "bars": bars, "spoken": "; ".join(bar["text"] for bar in bars)}


def _ratings(ratings: pd.Series) -> dict[str, Any]:
    counts = ratings.value_counts().sort_index()
    high = counts.index[int(counts.to_numpy().argmax())]
    text = f"{high:g} stars are given most often; the mean is {ratings.mean():.2f}."
    return _figure("How people rate", text, [f"{star:g} ★" for star in counts.index], counts.to_numpy(), "ratings")


def _activity(lab: Lab) -> dict[str, Any]:
    edges = [0, 20, 50, 100, 200, 400, np.inf]
    labels = ["< 20", "20+", "50+", "100+", "200+", "400+"]
    counts = np.histogram(lab.n_ratings, bins=edges)[0]
    text = f"Half of the people have rated fewer than {np.median(lab.n_ratings):.0f} films before the test."
    return _figure("How much people rate", text, labels, counts, "people")


def _tail(popularity: np.ndarray, few: int, head: float) -> dict[str, Any]:
    tenths = [part.sum() for part in np.array_split(popularity, 10)] if len(popularity) >= 10 else [popularity.sum()]
    labels = [f"{number + 1}." for number in range(len(tenths))]
    bars = _figure("The long tail", "", labels, np.array(tenths), "ratings")
    for number, bar in enumerate(bars["bars"]):
        bar["text"] = f"tenth {number + 1}: {tenths[number]:,} ratings"
    spoken = "; ".join(bar["text"] for bar in bars["bars"])
    return {
        **bars,
        "spoken": spoken,
        "text": f"Films in tenths by how many know them: the first has {percent(head)} of the ratings.",
    }


def results_board(lab: Lab, state: State, *, live: bool = True) -> str:
    """The leaderboard of one measure, with intervals; ``live``: with a choice of the measure."""
    metric = state.metric or (lab.metrics[0] if lab.metrics else "")
    ranking = lab.ranking(metric) if metric else []
    values = [model["metrics"][metric] for model in ranking]
    low = min((v["low"] if v.get("low") is not None else v["mean"] for v in values), default=0.0)
    high = max((v["high"] if v.get("high") is not None else v["mean"] for v in values), default=1.0)
    space = ((high - low) or 1.0) * 0.04
    low, wide = low - space, (high - low) + 2 * space
    kind = metric.split("@")[0].lower()
    return render(
        "board",
        command=lab.command(lab.paths.metrics / "leaderboard.json"),
        rows=[_board_row(lab, model, metric, low, wide) for model in ranking],
        title="Which model is best, and is it certain?" if live else measure(metric),
        metrics={name: measure(name) for name in lab.metrics} if live else {},
        metric=metric,
        shown=measure(metric),
        lower_is_better=kind in LOWER_IS_BETTER,
        timed=any(model.get("fit_seconds") is not None for model in ranking),
        meaning=next((text for name, text in MEANINGS.items() if kind.startswith(name)), ""),
        takeaway=_takeaway(ranking, metric),
        protocol=_protocol(lab),
    )


def _board_row(lab: Lab, model: dict[str, Any], metric: str, low: float, wide: float) -> dict[str, Any]:
    value = model["metrics"][metric]
    mean = value["mean"]
    bottom = mean if value.get("low") is None else value["low"]
    top = mean if value.get("high") is None else value["high"]
    seconds = model.get("fit_seconds")
    known = value.get("low") is not None
    return {
        "label": label(model["name"]),
        "about": lab.about(model["name"]),
        "mean": mean,
        "shown": f"{mean:.3f}",
        "low": bottom,
        "left": round(100 * (bottom - low) / wide, 2),
        "width": round(100 * (top - bottom) / wide, 2),
        "at": round(100 * (mean - low) / wide, 2),
        "range": f"{bottom:.3f} – {top:.3f}" if known else "not measured",
        "spoken": f"{mean:.3f}, between {bottom:.3f} and {top:.3f}" if known else f"{mean:.3f}",
        "seconds": -1 if seconds is None else seconds,
        "fitted": "–" if seconds is None else f"{seconds:.1f} s" if seconds >= 0.1 else "< 0.1 s",
    }


def _takeaway(ranking: list[dict[str, Any]], metric: str) -> str:
    """One sentence on who leads, careful where the intervals overlap."""
    if len(ranking) < 2 or metric.startswith("popularity_lift"):  # more of it is neither good nor bad
        return ""
    first, second = ranking[0], ranking[1]
    one, two = first["metrics"][metric], second["metrics"][metric]
    text = (
        f"{label(first['name'])} leads with {one['mean']:.3f}, before {label(second['name'])} with {two['mean']:.3f}. "
    )
    if None in (one.get("low"), two.get("high"), one.get("high"), two.get("low")):
        return text
    apart = one["low"] > two["high"] or one["high"] < two["low"]
    people = one.get("n_users")
    known = f" ({people:,} people)" if people else ""
    if apart:
        return text + f"Their 95 % intervals do not even touch{known}: the lead is real on this data."
    return text + (
        f"Their 95 % intervals overlap{known}, so the two may be equally good; the paired tests of the report, which "
        "compare person by person, can see smaller differences."
    )


def _protocol(lab: Lab) -> str:
    split = lab.prepared.split
    given = ", ".join(f"{name} {value}" for name, value in split.params.items())
    liked = f"liked means rated {lab.prepared.relevant_from:g} or more; " if lab.has_ratings else ""
    return (
        f"Measured on what no model had seen, {PARTS.get(split.name, 'the test part')} "
        f"(split {split.name}: {given}); {liked}"
        "the whole catalogue is ranked. The line of each model is its 95 % interval, the mark its mean."
    )
