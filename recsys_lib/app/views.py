"""What the application shows, as functions of its choices that return HTML."""

from __future__ import annotations

import base64
import io
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from recsys_lib.app.lab import Lab, NotPossibleError
from recsys_lib.app.prepared import LOWER_IS_BETTER
from recsys_lib.app.state import MOST_MODELS, App
from recsys_lib.data.catalogue import label
from recsys_lib.models.base import Recommender

UNITS = {"Blend": "z-score", "Popularity": "weighted ratings"}
MEANINGS = {
    "ndcg": "how near the top the relevant films stand; 1 is a perfect list",
    "precision": "share of the list that is relevant",
    "recall": "share of the relevant films that is in the list",
    "hit": "share of users with at least one relevant film in the list",
    "mrr": "how early the first relevant film comes",
    "map": "how early the relevant films come, on the whole",
    "r_precision": "precision of a list as long as the number of relevant films",
    "auc": "chance that a relevant film stands above one that was not rated",
    "rmse": "typical error of a predicted rating, in stars; lower is better",
    "mae": "mean error of a predicted rating, in stars; lower is better",
    "coverage": "share of the catalogue that anybody is shown",
    "gini": "how unevenly the films are shown; lower is more even",
    "novelty": "how little known the films shown are",
    "diversity": "how unlike each other the films of one list are",
    "serendipity": "relevant films that popularity alone would not have shown",
    "popularity_lift": "how much better known the films shown are than those of the history",
    "personalisation": "how unlike each other the lists of different users are",
    "miscalibration": "how far the genres of the list are from the user's own; lower is nearer",
}


@cache
def templates(name: str = "views.html") -> Any:
    """The macros of a template file; everything they print is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["commands"] = lambda text: Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))
    environment.filters["label"] = environment.globals["label"] = label
    environment.globals["image"] = image
    return environment.get_template(name).module


def image(film: Any) -> str:
    """The film's poster from the folder that ``POSTERS_DIR`` names, as a data address; "" where there is none."""
    folder = os.environ.get("POSTERS_DIR")
    for kind in ("jpg", "png", "webp") if folder and re.fullmatch(r"[\w-]+", str(film.id)) else ():
        file = Path(folder) / f"{film.id}.{kind}"
        if file.is_file() and file.stat().st_size < 300_000:
            return f"data:image/{kind.replace('jpg', 'jpeg')};base64,{base64.b64encode(file.read_bytes()).decode()}"
    return ""


# ---- lists ---------------------------------------------------------------------------------------------------


def user_list(app: App, *, explained: bool = False) -> str:
    """The films that the chosen model lists for the chosen user; ``explained``: with the reasons of all of them."""

    def ask(model: Recommender) -> pd.DataFrame:
        return model.recommend([app.user], app.k, exclude_seen=app.hide_rated, **_options(app))

    rated = app.lab.history_of(app.user).set_index("item_id")["rating"].to_dict()
    return _one_list(app, ask, app.user, rated, explained)


def new_user_list(app: App) -> str:
    """The films that the chosen model lists for the new user."""
    return _one_list(app, lambda model: model.recommend_new(app.liked, app.k, **_options(app)), app.liked, app.liked)


def _options(app: App) -> dict[str, Any]:
    if app.diversity and app.diversify == "calibration" and app.lab.model(app.model).genres is None:
        raise NotPossibleError(f"{label(app.model)} has learnt no genres: choose the other kind of diversity.")
    candidates = app.lab.allowed(app.genre, app.years)
    return {"candidates": candidates, "diversity": app.diversity / 100, "diversify": app.diversify}


def _one_list(app: App, ask: Callable, user: Any, rated: dict[Any, float], explained: bool = False) -> str:
    shown = _listed(app, app.model, ask, len(rated))
    films = [row["film"] for row in shown["rows"]]
    opened = {film.id: details(app, film, user, rated) for film in films if explained or film.id == app.film}
    return templates().one_list(app, shown, "you" if user is app.liked else f"user {user}", rated, opened)


def _listed(app: App, name: str, ask: Callable, n: int | None = None) -> dict[str, Any]:
    """A model's list as the template takes it, or why there is none; ``n`` films are known of the user, if any."""
    shown = {"name": name, "n": n, "few": 0, "instead": False, "failed": "", "file": "", "unit": "", "rows": []}
    try:
        model = app.lab.model(name)
        table = ask(model)
    except NotPossibleError as error:
        return shown | {"failed": str(error)}
    if table.empty:
        return shown | {"failed": "No film fits these choices: allow more years or another genre."}
    shown["few"], shown["instead"] = model.few, "fallback" in table and bool(table["fallback"].any())
    unit = "stars" if model.predicts_ratings else UNITS.get(app.lab.configs[name]["model"], "score (no unit)")
    shown["unit"] = unit = "ratings" if shown["instead"] else unit
    form = "{:.1f}" if unit == "stars" else "{:.0f}" if "ratings" in unit else "{:.3g}"
    heights = table["score"] - min(0.0, table["score"].min())
    films = app.lab.films.loc[table["item_id"]]
    rows = {"rank": table["rank"], "value": map(form.format, table["score"]), "film": films.itertuples()}
    rows["width"] = np.clip(100 * heights / (heights.max() or 1.0), 2, 100).round()
    shown["rows"] = pd.DataFrame(rows).to_dict("records")
    exported = table[["rank", "item_id", "score"]].assign(title=films["title"].array, year=films["year"].array)
    shown["file"] = "data:text/csv;base64," + base64.b64encode(exported.to_csv(index=False).encode()).decode()
    return shown


def details(app: App, film: Any, user: Any, rated: dict[Any, float]) -> str:
    """A film's facts, what speaks for it, similar films, and the data set's own page of it, where it has one."""
    lead, reasons = why(app, film.id, user, rated)
    best = next(iter(app.lab.computed["similar"]), app.model)
    similar = map(app.lab.film, app.lab.model(best).similar_items([film.id], 5)["similar_item_id"])
    return templates().details(app.lab, film, lead, reasons, similar)


def why(app: App, item: Any, user: Any, rated: dict[Any, float]) -> tuple[str, list[dict[str, Any]]]:
    """What moves a film's score most: films of the history first, then the rest of it and the item bias.

    A leading sentence, and for each reason its "text", "rating" (None where unknown), "against" (lowers the score),
    "share" (of all that moves it) and "width".
    """
    table = app.lab.model(app.model).explain(user, item, k=5)
    size = table["contribution"].abs()
    total = size.sum()
    if not total or not table["item_id"].notna().any():
        return f"{label(app.model)} lists it whatever the history.", []
    table = table.assign(size=size, rest=table["item_id"].isna())[size >= 0.005 * total]
    reasons = []
    for row in table.sort_values(["rest", "size"], ascending=[True, False], kind="stable").itertuples():
        reason = {"text": row.reason.capitalize() if row.rest else app.lab.film(row.item_id).title}
        reason |= {"against": row.contribution < 0, "width": round(100 * row.size / size.max())}
        reason["rating"] = None if row.rest or not app.lab.has_ratings else rated.get(row.item_id)
        reasons.append(reason | {"share": f"{'−' if reason['against'] else '+'}{100 * row.size / total:.0f}\u00a0%"})
    lead = "Which films of the history moved the score, as shares of everything that moved it; + for it, − against it."
    if any((reason["rating"] or 3) < 3 and not reason["against"] for reason in reasons):
        lead += f" {label(app.model)} counts that a film was rated, so a low rating can speak for another film."
    return lead, reasons


# ---- the user ------------------------------------------------------------------------------------------------


def profile(app: App) -> str:
    """Who the user is, as far as it is known."""
    table = app.lab.history_of(app.user)
    numbers = {"films rated": len(table)}
    numbers |= {"mean rating": f"★ {table['rating'].mean():.2f}"} if app.lab.has_ratings else {}
    if "timestamp" in table:
        numbers["from"], numbers["until"] = _days(table["timestamp"].agg(["min", "max"]))
    return templates().numbers(numbers | app.lab.facts.get(app.user, {}), f"User {app.user}")


def _days(seconds: pd.Series) -> list[str]:
    return pd.to_datetime(seconds, unit="s").dt.strftime("%-d %b %Y").tolist()


def history(app: App) -> str:
    """Everything the user has rated, with any column of the items table."""
    lab, t, table = app.lab, templates(), app.lab.history_of(app.user).reset_index(drop=True)
    films = lab.films.loc[table["item_id"]].reset_index(drop=True)
    column = {"mean": films["mean"].round(2), "ratings": films["n"]}.get(app.column)
    table["title"] = films["title"]
    table["column"] = lab.items.loc[table["item_id"], app.column].array if column is None else column
    if app.order != "latest":
        text = app.order == "title" or not pd.api.types.is_numeric_dtype(table[app.order])
        key = (lambda values: values.astype(str)) if text else None
        table = table.sort_values(app.order, key=key, ascending=app.order != "rating", kind="stable")
    shown = [", ".join(v) if isinstance(v, list) else "–" if pd.isna(v) else v for v in table["column"].astype(object)]
    cells = {"Film": [t.link(film) for film in films.loc[table.index].itertuples()]}
    cells |= {"Rating": map(t.stars, table["rating"])} if lab.has_ratings else {}
    cells |= {label(app.column): shown}
    cells |= {"When": _days(table["timestamp"])} if "timestamp" in table else {}
    return Markup("<h2>History</h2>") + t.table("History", list(cells), list(zip(*cells.values(), strict=True)))


def groups(app: App) -> str:
    """Groups of films for a new user to begin with, as long as little is known."""
    groups = app.lab.groups(list(app.liked)) if len(app.liked) < 8 else []
    films = [list(map(app.lab.film, group)) for group in groups]
    return templates().groups(films, not app.liked) if films else ""


def picks(app: App) -> str:
    """The new user's ratings, and films to add."""
    lab, (low, high), liked = app.lab, app.lab.scale, list(app.liked)
    stars = np.arange(low, high + 0.01, 1.0 if low == 1 and high <= 6 else 0.5).tolist() if lab.has_ratings else []
    suggestions = [(item, f"+ {lab.film(item).title}") for item in lab.suggestions(liked)]
    return templates().picks([(lab.film(item), app.liked[item]) for item in liked], stars, suggestions)


def read_ratings(lab: Lab, content: bytes) -> pd.DataFrame:
    """Match ratings of a Letterboxd or IMDb export with the films here, by title and year; a row a rating.

    Columns: given (title and year), item_id (None where no film matches), rating (on the scale of the data; NaN where
    there is none). NotPossibleError if the file has no columns of such an export.
    """
    table = pd.read_csv(
        io.BytesIO(content), dtype=str, keep_default_na=False, encoding_errors="replace", on_bad_lines="skip"
    )
    columns = {"name": "title", "your rating": "rating"}
    names = table.columns.str.strip().str.lower()
    table.columns = [columns.get(name, name) for name in names]
    if not {"title", "rating"} <= {*table}:
        raise NotPossibleError("The file has no columns Name and Rating (Letterboxd) or Title and Your Rating (IMDb).")
    given = [f"{row['title']} ({row['year']})" if row.get("year") else row["title"] for row in table.to_dict("records")]
    values = pd.to_numeric(table["rating"], errors="coerce")
    best = 10 if "your rating" in names or values.max() > 5 else 5
    known = {_key(text): item for text, item in lab.film_labels.items()}
    items = pd.Series([known.get(_key(text)) for text in given], dtype=object)
    rating = (2 * values / best * lab.scale[1]).round() / 2
    return pd.DataFrame({"given": given, "item_id": items, "rating": rating.clip(*lab.scale)})


def _key(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower().replace("&", "and")).strip()


# ---- side by side --------------------------------------------------------------------------------------------


def model_chips(app: App) -> str:
    """The models, to choose those side by side."""
    return templates().chips("model", app.lab.models.items(), f"Side by side, at most {MOST_MODELS}", app.models)


def similar_lists(app: App) -> str:
    """A film, and those that each model finds most similar to it."""
    film, shares = app.lab.film(app.similar_to), app.lab.computed["similar"]
    columns = {"item_id": "film", "similar_item_id": "item_id"}

    def ask(model: Recommender) -> pd.DataFrame:
        return model.similar_items([film.id], app.k).rename(columns=columns)

    lists = [_listed(app, name, ask) for name in sorted(app.models, key=lambda name: -shares.get(name, 0))]
    return templates().similar(app, film, lists, _times(lists), shares)


def compare_lists(app: App) -> str:
    """The same user's lists by several models, and what the user rated next."""
    new = app.who == "new user"
    after, n = ({}, len(app.liked)) if new else (app.lab.rated_next(app.user), len(app.lab.history_of(app.user)))

    def ask(model: Recommender) -> pd.DataFrame:
        return model.recommend_new(app.liked, app.k) if new else model.recommend([app.user], app.k)

    lists = [_listed(app, name, ask, n) for name in app.models]
    for each in lists:
        each["hits"] = sum(row["film"].id in after for row in each["rows"])
    times = _times(lists)
    following = sorted(filter(app.lab.film, after), key=lambda item: (-times[item], -after[item]))
    return templates().compare(app, lists, times, after, list(map(app.lab.film, following)))


def _times(lists: list[dict[str, Any]]) -> Counter:
    """In how many lists each film is, by id."""
    return Counter(row["film"].id for each in lists for row in each["rows"])


# ---- data and results ----------------------------------------------------------------------------------------


def data(app: App) -> str:
    """What the data is, in a few numbers and three small figures."""
    lab, known, test = app.lab, app.lab.known, app.lab.test
    n_rated, n = len(np.union1d(known.item_ids, test.item_ids)), known.matrix.nnz + test.matrix.nnz
    numbers = {"users": f"{known.n_users:,}", "films that models can list": f"{known.n_items:,}", "ratings": f"{n:,}"}
    numbers["films with ratings in the test part alone"] = f"{n_rated - known.n_items:,}"
    numbers["of all user-film pairs are rated"] = f"{100 * n / (known.n_users * n_rated):.1f} %"
    if known.seconds is not None:
        both = np.append(known.seconds, test.seconds)
        numbers["collected"] = " – ".join(_days(pd.Series([both.min(), both.max()])))
    tenths = [int(part.sum()) for part in np.array_split(np.sort(known.item_counts)[::-1], 10)]
    head = f"{100 * tenths[0] / sum(tenths):.0f} %"
    limits = {"< 20": 0, "20+": 20, "50+": 50, "100+": 100, "200+": 200, "400+": 400}
    lengths = dict(zip(limits, np.histogram(lab.lengths, [*limits.values(), np.inf])[0], strict=True))
    half = f"Half of the users have rated fewer than {np.median(lab.lengths):.0f} films."
    tail = f"Films in tenths, most rated first: the first tenth has {head} of the ratings."
    figures = [("How many films users rate", half, lengths), ("The long tail", tail, dict(enumerate(tenths, 1)))]
    if lab.has_ratings:
        counts = pd.Series(np.append(known.matrix.data, test.matrix.data)).value_counts().sort_index()
        stars = {f"{star:g} ★": n for star, n in counts.items()}
        figures.insert(0, ("How users rate", f"{counts.idxmax():g} stars are given most often.", stars))
    lead = f"A tenth of the films has {head} of all ratings: the models must find what the rest has to offer."
    return templates().data(lead, numbers, figures)


def board(app: App) -> str:
    """The leaderboard of one metric as a table, with what may be said of the best."""
    lab, kind = app.lab, app.metric.split("@")[0]
    rows = lab.ranking(app.metric)
    if not rows:
        command = lab.run.command_for(lab.run.paths.metrics / "leaderboard.json")
        return templates().message(f"`{command}` makes it; then open this page again.", "empty", "No leaderboard yet")
    meaning = next((text for name, text in MEANINGS.items() if kind.startswith(name)), "")
    best = {"popularity_lift": ""}.get(kind, "lowest" if kind in LOWER_IS_BETTER else "highest")
    cells = []
    for row in rows:
        about = Markup("{}<small>{}</small>").format(row["label"], lab.about(row["name"]))
        interval = (
            "not\u00a0measured" if row["low"] is None else f"{row['low']:.3f}\u00a0–\u2060\u00a0{row['high']:.3f}"
        )
        seconds = "–" if row["seconds"] is None else f"{row['seconds']:.1f}\u00a0s"
        cells.append([about, f"{row['mean']:.3f}", interval, seconds])
    return templates().board(lab, label(app.metric), meaning, rows, cells, best, lab.computed["p"].get(app.metric))
