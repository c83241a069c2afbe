"""Lists of several models side by side: films alike one film, and films for one person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from recsys_lib.app.lab import Lab, NotPossibleError, label
from recsys_lib.app.rendering import render
from recsys_lib.app.state import MOST_MODELS, State


def _tables(lab: Lab, names: tuple[str, ...], ask: Callable[[Any], pd.DataFrame]) -> dict[str, Any]:
    """What each model answers: its table, or the sentence that says why there is none."""
    answers: dict[str, Any] = {}
    for name in names:
        try:
            answers[name] = ask(lab.model(name))
        except NotPossibleError as error:
            answers[name] = str(error)
        except KeyError:
            answers[name] = f"{label(name)} does not know this one."
    return answers


def _columns(lab: Lab, answers: dict[str, Any], column: str) -> list[dict[str, Any]]:
    """One list a model, each row knowing in how many lists its film stands."""
    tables = {name: answer for name, answer in answers.items() if not isinstance(answer, str)}
    ids = [item for table in tables.values() for item in table[column]]
    lists = pd.Series(ids).value_counts().to_dict() if ids else {}
    columns = []
    for name, table in tables.items():
        items = table[column].to_numpy()
        rows = [
            {"film": film, "id": item, "rank": int(rank), "lists": lists[item], "hit": False, "rating": 0, "shared": []}
            for film, item, rank in zip(lab.films(items), items, table["rank"], strict=True)
        ]
        columns.append({"name": name, "rows": rows, "failed": ""})
    columns += [{"name": name, "rows": [], "failed": answer} for name, answer in answers.items() if name not in tables]
    return [{"label": label(column["name"]), "about": "", "more": "", **column} for column in columns]


def similar_lists(lab: Lab, state: State) -> str:
    """Which films each model holds to be alike one film."""
    item = lab.film_id(state.film)
    film = lab.films([item])[0]
    answers = _tables(lab, state.models, lambda model: model.similar_items([item], state.k))
    columns = _columns(lab, answers, "similar_item_id")
    for column in columns:
        for row in column["rows"]:
            row["shared"] = [genre for genre in row["film"].genres if genre in film.genres]
    everywhere = [row["film"].title for row in columns[0]["rows"] if row["lists"] == len(columns)] if columns else []
    summary = ""
    if len(columns) > 1:
        names = ": " + ", ".join(everywhere[:6]) + (", …" if len(everywhere) > 6 else "") if everywhere else ""
        summary = f"{_count(len(everywhere), 'film')} of {state.k} in all {len(columns)} lists{names}."
    return _side_by_side(lab, film=film, columns=columns, summary=summary)


def compare_lists(lab: Lab, state: State) -> str:
    """The same person's lists by several models, and what the person really watched next."""
    user = lab.person_id(state.person)
    answers = _tables(lab, state.models, lambda model: model.recommend([user], state.k))
    columns = _columns(lab, answers, "item_id")
    after = lab.watched_next(state.person)
    ratings = dict(zip(after["item_id"], after.get("rating", pd.Series(0.0, after.index)), strict=True))
    for column in columns:
        column["about"] = lab.about(column["name"])
        for row in column["rows"]:
            row["hit"] = row["id"] in ratings
            row["rating"] = ratings.get(row["id"], 0) if lab.has_ratings else 0
        if ratings and not column["failed"]:
            column["more"] = f"{sum(row['hit'] for row in column['rows'])} watched next"
    found = (
        pd.Series([row["id"] for column in columns for row in column["rows"]], dtype=object).value_counts().to_dict()
    )
    next_films = [
        {"film": film, "rating": ratings[item], "found": found.get(item, 0)}
        for item, film in zip(ratings, _known(lab, ratings), strict=True)
        if film
    ]
    next_films.sort(key=lambda row: (-row["found"], -row["rating"]))
    summary = _compared(state, columns, len(ratings))
    return _side_by_side(lab, state.person, columns=columns, summary=summary, next_films=next_films)


def _known(lab: Lab, items: Any) -> list[Any]:
    """The films of these ids, None where the catalogue lacks one."""
    return [lab.films([item])[0] if lab.knows_film(str(item)) else None for item in items]


def _compared(state: State, columns: list[dict[str, Any]], n_next: int) -> str:
    if not n_next:
        return f"Nothing is known of what person {state.person} watched next: the test part has nothing of them."
    if not columns:
        return ""
    hits = [sum(row["hit"] for row in column["rows"]) for column in columns]
    best = [column["label"] for column, n in zip(columns, hits, strict=True) if n == max(hits)]
    if max(hits) == 0:
        return f"None of these lists names a film of the {n_next} that person {state.person} watched next."
    who = " and ".join([", ".join(best[:-1]), best[-1]]) if len(best) > 1 else best[0]
    return (
        f"Of the {n_next} films that person {state.person} watched next, {who} "
        f"{'each name' if len(best) > 1 else 'names'} {max(hits)} in {state.k}. One person proves nothing: the "
        "leaderboard counts everybody."
    )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _side_by_side(
    lab: Lab, person: str = "", *, columns: Any, summary: str, film: Any = None, next_films: Any = ()
) -> str:
    return render(
        "side_by_side",
        lab=lab,
        person=person,
        film=film,
        columns=columns,
        summary=summary,
        most=MOST_MODELS,
        legend=len(columns) > 1 or bool(next_films),
        next_known=bool(next_films),
        next_films=list(next_films),
    )
