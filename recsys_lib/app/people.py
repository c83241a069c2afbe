"""A person, known or new: who they are, what they like, what a model would put before them, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from recsys_lib.app.lab import HUES, Lab, NotPossibleError, label
from recsys_lib.app.rendering import day, percent, render
from recsys_lib.app.state import State


def _tastes(lab: Lab, history: pd.DataFrame, most: int = 9) -> list[dict[str, Any]]:
    """Genres of a history, the most frequent first."""
    genres = pd.Series([film.genres for film in lab.films(history["item_id"].to_numpy())], dtype=object)
    table = pd.DataFrame({"genre": genres, "rating": history["rating"].to_numpy()}).explode("genre").dropna()
    counts = table.groupby("genre")["rating"].agg(["size", "mean"]).sort_values("size", ascending=False).head(most)
    top = counts["size"].max() if len(counts) else 1
    return [
        {"genre": genre, "n": int(n), "mean": mean, "width": round(100 * n / top), "hue": HUES.get(genre, 205)}
        for genre, n, mean in counts.itertuples()
    ]


def person_card(lab: Lab, state: State) -> str:
    """Who a person is, as far as it is known, and what they like."""
    history = lab.history_of(state.person)
    dated = "timestamp" in history and len(history) > 0
    return render(
        "person",
        lab=lab,
        person=state.person,
        facts=lab.facts_of(state.person),
        n=len(history),
        mean=float(history["rating"].mean()),
        first=day(history["timestamp"].min()) if dated else "",
        last=day(history["timestamp"].max()) if dated else "",
        tastes=_tastes(lab, history),
    )


def person_history(lab: Lab, state: State) -> str:
    """Everything a person has rated, in a table that can be sorted."""
    history = lab.history_of(state.person)
    dated = "timestamp" in history
    seconds = history["timestamp"] if dated else np.zeros(len(history), int)
    rows = [
        {"film": film, "rating": rating, "second": int(second), "day": day(second) if dated else ""}
        for film, rating, second in zip(
            lab.films(history["item_id"].to_numpy()), history["rating"], seconds, strict=True
        )
    ]
    return render("history", lab=lab, person=state.person, rows=rows, dated=dated)


def _rows(lab: Lab, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a list of recommendations; the bar is relative to the best and the worst score of the list."""
    scores = table["score"].to_numpy(float)
    low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 1.0)
    base = min(0.0, low)
    shares = np.clip(100 * (scores - base) / ((high - base) or 1.0), 2, 100)
    films = lab.films(table["item_id"].to_numpy())
    return [
        {"film": film, "rank": int(rank), "score": f"{score:.3g}", "share": round(share), "why": ""}
        for film, rank, score, share in zip(films, table["rank"], scores, shares, strict=True)
    ]


def _varied(lab: Lab, state: State) -> dict[str, Any]:
    """How much variety a list is to have, and of which kind."""
    if state.diversity and state.variety == "calibration" and lab.model(state.model).genres is None:
        raise NotPossibleError(f"{label(state.model)} has learnt no genres: choose the other kind of variety.")
    return {"diversity": state.diversity / 100, "diversify": state.variety}


def person_list(lab: Lab, state: State, *, live: bool = True) -> str:
    """The films that a model puts before a person; ``live``: the reasons come when they are asked for."""
    model = lab.model(state.model)
    candidates = lab.candidates(state.genre, state.since, state.until)
    user = lab.person_id(state.person)
    varied = _varied(lab, state)
    table = model.recommend([user], state.k, exclude_seen=state.unseen, candidates=candidates, **varied)
    title = f"{len(table)} films for person {state.person}, by {label(state.model)}"
    nothing = "No film fits these choices. Allow more years or another genre."
    rows = _rows(lab, table)
    for row in rows if not live else ():
        row["why"] = Markup(why(lab, state, "person", row["film"].id))
    return render("list", rows=rows, title=title, note=lab.about(state.model), scope="person", nothing=nothing)


def why(lab: Lab, state: State, scope: str, film: str) -> str:
    """What speaks for a film: the films of the history that move its score most."""
    model = lab.model(state.model)
    liked = {lab.film_id(each): rating for each, rating in state.liked}
    who = liked if scope == "new" else lab.person_id(state.person)
    table = model.explain(who, lab.film_id(film), k=4)
    table = table[table["contribution"].abs() > 0]
    ratings = liked if scope == "new" else lab.history_of(state.person).set_index("item_id")["rating"].to_dict()
    total, top = table["contribution"].abs().sum(), table["contribution"].abs().max()
    reasons = []
    for reason, item, part in table.itertuples(index=False):
        known = not pd.isna(item)
        text = lab.films([item])[0].title if known else str(reason).capitalize()
        reasons.append({
            "text": text,
            "rating": ratings.get(item) if known and lab.has_ratings else None,
            "against": part < 0,
            "share": f"{'−' if part < 0 else ''}{percent(abs(part) / total)}",
            "width": round(100 * abs(part) / top),
        })  # fmt: skip
    from_films = table["item_id"].notna().any()
    lead = (
        "What moves this score most:" if from_films else f"{label(state.model)} puts it here whatever one has watched."
    )
    return render("why", reasons=reasons if from_films else [], lead=lead)


def new_picks(lab: Lab, state: State) -> str:
    """What a newcomer has named, with stars to change, and well known films to add."""
    chosen = [film for film, _ in state.liked]
    films = lab.films([lab.film_id(film) for film in chosen]) if chosen else []
    picks = [{"film": film, "rating": rating} for film, (_, rating) in zip(films, state.liked, strict=True)]
    low, high = lab.scale
    step = 1.0 if low == int(low) else 0.5
    stars = [low + step * number for number in range(round((high - low) / step) + 1)]
    suggestions = [film for film in lab.well_known(24) if film.id not in chosen][:8]
    return render("picks", lab=lab, picks=picks, stars=stars, halves=step < 1, suggestions=suggestions)


def new_list(lab: Lab, state: State) -> str:
    """The films that a model puts before somebody it has never met."""
    liked = {lab.film_id(film): rating for film, rating in state.liked}
    table = lab.model(state.model).recommend_new(liked, state.k, **_varied(lab, state))
    fallback = bool(table["fallback"].any())
    title = f"{len(table)} films for you, by {label(state.model)}"
    strangers = "Nothing is known of you yet, so these are the films that most people know."
    note = strangers if fallback else lab.about(state.model)
    return render("list", rows=_rows(lab, table), title=title, note=note, scope="new", nothing="There is no film left.")
