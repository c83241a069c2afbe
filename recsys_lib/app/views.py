"""What the application shows, as functions of its choices that return HTML."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from recsys_lib.app.lab import LOWER_IS_BETTER, Film, Lab, NotPossibleError, label
from recsys_lib.app.state import MOST_MODELS, App

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
PARTS = {
    "temporal_user": "the last ratings of each user",
    "return_visit": "what each user rated on later visits",
    "temporal_global": "everything after one day",
    "random": "ratings drawn at random",
    "leave_one_out": "the last film of each user",
    "canonical_fold": "one of the five folds that came with the data",
}


def commands(text: str) -> Markup:
    """A text in whose HTML what stands between backquotes looks like a command.

    >>> commands("<b>: `make 05` makes it")
    Markup('&lt;b&gt;: <code>make 05</code> makes it')
    """
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


@cache
def templates(name: str = "views.html") -> Any:
    """The macros of a template file; everything they print is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["commands"] = commands
    return environment.get_template(name).module


def day(second: int) -> str:
    """The day of a UNIX second, in UTC.

    >>> day(881250949)
    '4 Dec 1997'
    """
    return datetime.fromtimestamp(int(second), UTC).strftime("%-d %b %Y")


def image(film: Film) -> str:
    """The film's poster from the folder that ``POSTERS_DIR`` names, as a data address; "" where there is none."""
    folder = os.environ.get("POSTERS_DIR")
    for kind in ("jpg", "png", "webp") if folder and re.fullmatch(r"[\w-]+", str(film.id)) else ():
        file = Path(folder) / f"{film.id}.{kind}"
        if file.is_file() and file.stat().st_size < 300_000:
            return f"data:image/{kind.replace('jpg', 'jpeg')};base64,{base64.b64encode(file.read_bytes()).decode()}"
    return ""


def film_facts(lab: Lab, film: Film) -> str:
    """Year, genres, mean rating and number of ratings of a film, in one line."""
    rated = (
        f"mean {film.mean:.2f} of {lab.scale[1]:g} stars from {film.n:,} ratings"
        if lab.has_ratings
        else f"{film.n:,} users"
    )
    return " · ".join(filter(None, [str(film.year or ""), ", ".join(film.genres), rated]))


# ---- lists ---------------------------------------------------------------------------------------------------


def user_list(app: App, *, explained: bool = False) -> str:
    """The films that the chosen model lists for the chosen user; ``explained``: with the reasons of all of them."""
    model = app.lab.model(app.model)
    given = {"exclude_seen": app.hide_rated, "candidates": app.lab.allowed(app.genre, app.years), **_diversity(app)}
    table = model.recommend([app.user], app.k, **given)
    return _cards(app, table, f"for user {app.user}", app.user, explained=explained)


def new_user_list(app: App) -> str:
    """The films that the chosen model lists for the new user."""
    model = app.lab.model(app.model)
    table = model.recommend_new(app.liked, app.k, candidates=app.lab.allowed(app.genre, app.years), **_diversity(app))
    return _cards(app, table, "for you", app.liked, thumbs=True)


def _diversity(app: App) -> dict[str, Any]:
    if app.diversity and app.diversify == "calibration" and app.lab.model(app.model).genres is None:
        raise NotPossibleError(f"{label(app.model)} has learnt no genres: choose the other kind of diversity.")
    return {"diversity": app.diversity / 100, "diversify": app.diversify}


def _cards(
    app: App, table: pd.DataFrame, for_whom: str, user: Any, *, thumbs: bool = False, explained: bool = False
) -> str:
    if table.empty:
        return templates().empty("No film fits these choices", "Allow more years or another genre.")
    lab = app.lab
    fallback = bool(table["fallback"].any())
    unit, shown = _unit(app, app.model, fallback)
    scores = table["score"].to_numpy(float)
    base = min(0.0, scores.min())
    widths = np.clip(100 * (scores - base) / ((scores.max() - base) or 1.0), 2, 100).round()
    rated = user if isinstance(user, dict) else lab.history_of(user).set_index("item_id")["rating"].to_dict()
    rows = []
    for item, rank, score, width in zip(table["item_id"].tolist(), table["rank"], scores, widths, strict=True):
        film, is_open = lab.film(item), app.film == item
        row = {"film": film, "rank": int(rank), "shown": shown.format(score), "width": width, "image": image(film)}
        row |= {
            "rated": rated.get(item),
            "open": is_open,
            "details": details(app, film, user) if is_open or explained else "",
        }
        rows.append(row)
    return templates().cards(
        f"{len(rows)} films {for_whom} by {label(app.model)}",
        lab.about(app.model),
        served_by(app, app.model, len(rated), fallback),
        rows,
        lab.scale,
        unit,
        as_csv(
            [(row["rank"], row["film"].id, row["film"].title, row["film"].year or "", row["shown"]) for row in rows],
            unit,
        ),
        thumbs,
    )


def _unit(app: App, name: str, fallback: bool = False) -> tuple[str, str]:
    """What a model's scores are, and how they are written."""
    own = "stars" if app.lab.model(name).predicts_ratings else UNITS.get(app.lab.configs[name]["model"])
    unit = "ratings" if fallback else own or "score (no unit)"
    return unit, "{:.1f}" if unit == "stars" else "{:.0f}" if "ratings" in unit else "{:.3g}"


def served_by(app: App, name: str, n: int, fallback: bool) -> str:
    """Which other model answers in the place of the one that was asked; "" where it answers itself."""
    if fallback:
        return (
            "Served by popularity, until one film is known."
            if n == 0
            else "Served by popularity: this history cannot be scored."
        )
    params = app.lab.configs[name]["params"]
    alone = params.get("new_users")  # of a blend that leaves short histories to one of its models
    if alone and n < params["few"]:
        return f"Served by {label(alone)}: {label(name)} leaves histories of fewer than {params['few']} films to it."
    return ""


def as_csv(rows: list[tuple], unit: str) -> str:
    """A list as an address that saves it as a CSV file."""
    text = io.StringIO()
    csv.writer(text).writerows([("rank", "item_id", "title", "year", unit), *rows])
    return "data:text/csv;base64," + base64.b64encode(text.getvalue().encode()).decode()


def details(app: App, film: Film, user: Any) -> str:
    """A film's facts, what speaks for it, and similar films."""
    lab, model = app.lab, app.lab.model(app.model)
    lead, reasons = why(app, film.id, user)
    similar = [lab.film(item) for item in model.similar_items([film.id], 5)["similar_item_id"].tolist()]
    return templates().details(film, film_facts(lab, film), lead, reasons, similar, _address(lab, film), lab.scale)


def _address(lab: Lab, film: Film) -> str:
    """The data set's own page of a film, where the data set has one."""
    return (
        f"https://movielens.org/movies/{film.id}" if lab.tables.manifest["data"]["name"].startswith("ml-latest") else ""
    )


def why(app: App, item: Any, user: Any) -> tuple[str, list[dict[str, Any]]]:
    """What moves a film's score most: films of the history first, then the rest of it and the item bias.

    Returns
    -------
    lead : str
    reasons : list of dict
        "text", "rating" (None where unknown), "against" (lowers the score), "share" (of all that moves it), "width".
    """
    lab = app.lab
    table = lab.model(app.model).explain(user, item, k=5)
    total = table["contribution"].abs().sum()
    if not total or not table["item_id"].notna().any():
        return f"{label(app.model)} lists it whatever the history.", []
    rated = user if isinstance(user, dict) else lab.history_of(user).set_index("item_id")["rating"].to_dict()
    table = table[table["contribution"].abs() >= 0.005 * total]
    table = table.iloc[np.lexsort((-table["contribution"].abs(), table["item_id"].isna()))]
    reasons = [
        {
            "text": lab.film(thing).title if not pd.isna(thing) else text.capitalize(),
            "rating": rated.get(thing) if lab.has_ratings and not pd.isna(thing) else None,
            "against": part < 0,
            "share": f"{'−' if part < 0 else '+'}{100 * abs(part) / total:.0f} %",
            "width": round(100 * abs(part) / table["contribution"].abs().max()),
        }
        for text, thing, part in table.itertuples(index=False)
    ]
    lead = "Which films of the history moved the score, as shares of everything that moved it; + for it, − against it."
    if any(reason["rating"] is not None and reason["rating"] < 3 and not reason["against"] for reason in reasons):
        lead += f" {label(app.model)} counts that a film was rated, so a low rating can speak for another film."
    return lead, reasons


# ---- the user -------------------------------------------------------------------------------------------------


def profile(app: App) -> str:
    """Who the user is, as far as it is known."""
    history = app.lab.history_of(app.user)
    numbers = {"films rated": len(history)}
    if app.lab.has_ratings:
        numbers["mean rating"] = f"★ {history['rating'].mean():.2f}"
    if "timestamp" in history:
        numbers |= {"from": day(history["timestamp"].min()), "until": day(history["timestamp"].max())}
    return templates().profile(app.user, app.lab.facts_of(app.user), numbers)


def history(app: App) -> str:
    """Everything the user has rated, with any column of the items table."""
    lab, table = app.lab, app.lab.history_of(app.user)
    codes = lab.known.item_codes(table["item_id"])
    values = {"mean": lab.means.round(2), "ratings": lab.counts}.get(app.column)
    values = lab.items[app.column].astype(object).to_numpy() if values is None else values
    shown = [
        ", ".join(value)
        if isinstance(value, list)
        else "–"
        if value is None or value is pd.NA or value != value
        else value
        for value in values[codes]
    ]
    table = table.assign(
        title=lab.titles[codes],
        column=shown,
        day=[day(second) for second in table["timestamp"]] if "timestamp" in table else "–",
    )
    if app.order != "latest":
        keys = (
            table[app.order].astype(str)
            if app.order == "column" and table["column"].dtype == object
            else table[app.order]
        )
        table = table.iloc[np.argsort(keys.to_numpy(), kind="stable")]
        table = table.iloc[::-1] if app.order == "rating" else table
    rows = table.rename(columns={"item_id": "id"}).to_dict("records")
    return templates().history(rows, label(app.column), lab.scale)


def picks(app: App) -> str:
    """The new user's ratings, groups of films to begin with, and films to add."""
    lab = app.lab
    low, high = lab.scale
    stars = (
        np.arange(low, high + 0.01, 1.0 if high - low < 6 and low == int(low) else 0.5).tolist()
        if lab.has_ratings
        else []
    )
    groups = (
        [
            {"ids": ",".join(map(str, ids)), "films": [lab.film(item) for item in ids]}
            for ids in lab.groups(list(app.liked))
        ]
        if len(app.liked) < 8
        else []
    )
    rows = [{"film": lab.film(item), "rating": rating} for item, rating in app.liked.items()]
    suggestions = [lab.film(item) for item in lab.suggestions(list(app.liked))]
    return templates().picks(rows, stars, suggestions, groups)


def read_ratings(lab: Lab, content: bytes) -> tuple[dict[Any, float], list[dict[str, Any]], list[str]]:
    """Match ratings of a Letterboxd or IMDb export with the films here, by title and year.

    Returns
    -------
    ratings : dict
        On the scale of the data, by item id.
    rows : list of dict
        "given", "film", "rating" of each match.
    missed : list of str
        What has no match.

    Raises
    ------
    NotPossibleError
        If the file has no columns of such an export.
    """
    table = pd.read_csv(
        io.BytesIO(content), dtype=str, keep_default_na=False, encoding_errors="replace", on_bad_lines="skip"
    )
    names = {name.strip().lower(): name for name in table}
    title = names.get("name") or names.get("title")
    rating = names.get("your rating") or names.get("rating")
    if title is None or rating is None:
        raise NotPossibleError("The file has no columns Name and Rating (Letterboxd) or Title and Your Rating (IMDb).")
    values = pd.to_numeric(table[rating], errors="coerce")
    best = 10.0 if "your rating" in names or values.max() > 5 else 5.0
    low, high = lab.scale
    known = {_key(text): item for text, item in lab.film_labels.items()}
    ratings, rows, missed = {}, [], []
    for name, year, value in zip(
        table[title], table.get(names.get("year", ""), [""] * len(table)), values, strict=True
    ):
        given = f"{name} ({year})" if year else name
        item = known.get(_key(given))
        if item is None or np.isnan(value):
            missed.append(given)
            continue
        ratings[item] = float(np.clip(round(2 * value / best * high) / 2, low, high))
        rows.append({"given": given, "film": lab.film(item).title, "rating": ratings[item]})
    return ratings, rows, missed


def _key(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower().replace("&", "and")).strip()


# ---- side by side ----------------------------------------------------------------------------------------------


def model_chips(app: App) -> str:
    """The models, to choose those side by side."""
    return templates().chips(app.lab.models, app.models, MOST_MODELS)


def film_card(app: App) -> str:
    """The film that others are compared with."""
    film = app.lab.film(app.similar_to)
    return templates().film(film, film_facts(app.lab, film), image(film))


def similar_lists(app: App) -> str:
    """The films that each model finds most similar to one film."""
    own = app.lab.film(app.similar_to).genres
    answers = _answers(
        app, lambda model: model.similar_items([app.similar_to], app.k).assign(item_id=lambda t: t["similar_item_id"])
    )
    columns = _columns(app, answers)
    for column in columns:
        share = app.lab.computed["similar"].get(column["name"], 0)
        column["about"] = f"Of such lists, {100 * share:.1f} % were liked later by users who had liked the film."
        for row in column["rows"]:
            row["value"] = ", ".join(genre for genre in row["film"].genres if genre in own) or "no genre in common"
    everywhere = (
        [row["film"].title for row in columns[0]["rows"] if row["lists"] == len(columns)] if len(columns) > 1 else []
    )
    summary = f"In all {len(columns)} lists: {', '.join(everywhere) or 'no film'}." if len(columns) > 1 else ""
    return templates().columns(summary, columns, "", [], (0, 0))


def compare_lists(app: App) -> str:
    """The same user's lists by several models, and what the user rated next."""
    lab, new = app.lab, app.who == "new user"
    if new:
        answers = _answers(app, lambda model: model.recommend_new(app.liked, app.k))
    else:
        answers = _answers(app, lambda model: model.recommend([app.user], app.k))
    after = {} if new else lab.rated_next(app.user)
    columns = _columns(app, answers)
    n = len(app.liked) if new else len(lab.history_of(app.user))
    for column in columns:
        column["about"] = lab.about(column["name"])
        table = answers[column["name"]]
        if not column["failed"]:
            column["served"] = served_by(app, column["name"], n, bool(table["fallback"].any()))
        for row in column["rows"]:
            row |= {"hit": row["film"].id in after, "rating": after.get(row["film"].id, 0.0)}
        if after and not column["failed"]:
            column["more"] = f"{sum(row['hit'] for row in column['rows'])} rated next"
    times = pd.Series([row["film"].id for column in columns for row in column["rows"]], dtype=object).value_counts()
    films = [(lab.film(item), rating) for item, rating in after.items()]
    rows = [{"film": film, "rating": rating, "lists": int(times.get(film.id, 0))} for film, rating in films if film]
    rows.sort(key=lambda row: (-row["lists"], -row["rating"]))
    return templates().columns(
        _compared(app, columns, len(after)), columns, f"What user {app.user} rated next", rows, lab.scale
    )


def _answers(app: App, ask: Any) -> dict[str, Any]:
    """What each model answers: its table, or the sentence that says why there is none."""
    answers: dict[str, Any] = {}
    for name in app.models:
        try:
            answers[name] = ask(app.lab.model(name))
        except NotPossibleError as error:
            answers[name] = str(error)
    return answers


def _columns(app: App, answers: dict[str, Any]) -> list[dict[str, Any]]:
    """One list a model, each row knowing in how many lists its film stands."""
    tables = {name: answer for name, answer in answers.items() if not isinstance(answer, str)}
    times = pd.Series([item for table in tables.values() for item in table["item_id"]], dtype=object).value_counts()
    columns = []
    for name, answer in answers.items():
        column = {"name": name, "label": label(name), "about": "", "more": "", "served": "", "failed": "", "rows": []}
        columns.append(column)
        if isinstance(answer, str):
            column["failed"] = answer
            continue
        unit, shown = _unit(app, name, "fallback" in answer and bool(answer["fallback"].any()))
        for item, rank, score in zip(answer["item_id"].tolist(), answer["rank"], answer["score"], strict=True):
            film = app.lab.film(item)
            value = f"{unit} {shown.format(score)}"
            row = {"film": film, "rank": int(rank), "lists": int(times[item]), "hit": False, "value": value}
            column["rows"].append(row | {"rating": 0.0, "image": image(film)})
    return columns


def _compared(app: App, columns: list[dict[str, Any]], n_next: int) -> str:
    if app.who == "new user":
        return f"The new user of the tab before, with {len(app.liked)} ratings."
    if not n_next:
        return f"Nothing is known of what user {app.user} rated next: the test part has nothing of them."
    hits = {column["label"]: sum(row["hit"] for row in column["rows"]) for column in columns}
    most = max(hits.values(), default=0)
    if not most:
        return f"None of these lists holds one of the {n_next} films that user {app.user} rated next."
    best = [name for name, n in hits.items() if n == most]
    return (
        f"Of the {n_next} films that user {app.user} rated next, {' and '.join(best)} "
        f"{'each list' if len(best) > 1 else 'lists'} {most} in {app.k}. One user proves nothing: the leaderboard "
        "counts all of them."
    )


# ---- data and results ------------------------------------------------------------------------------------------


def data(app: App) -> str:
    """What the data is, in a few numbers and three small figures."""
    lab, split = app.lab, app.lab.tables.split
    every = [split.train, split.valid, split.test]
    n, n_users, n_items = sum(map(len, every)), lab.known.n_users, lab.known.n_items
    every_item = pd.concat([part["item_id"] for part in every]).nunique()
    numbers = {"users": f"{n_users:,}", "films that models can list": f"{n_items:,}", "ratings": f"{n:,}"}
    numbers |= {"films with ratings in the test part alone": f"{every_item - n_items:,}"}
    numbers["of all user-film pairs are rated"] = f"{100 * n / (n_users * every_item):.1f} %"
    if "timestamp" in split.train:
        seconds = pd.concat([part["timestamp"] for part in every])
        numbers["collected"] = f"{day(seconds.min())} – {day(seconds.max())}"
    tenths = [int(part.sum()) for part in np.array_split(np.sort(lab.counts)[::-1], 10)]
    head = f"{100 * tenths[0] / max(sum(tenths), 1):.0f} %"
    lengths = np.diff(lab.known.matrix.indptr)
    labels = ["< 20", "20+", "50+", "100+", "200+", "400+"]
    figures = [
        _figure(
            "How many films users rate",
            f"Half of the users have rated fewer than {np.median(lengths):.0f} films.",
            labels,
            np.histogram(lengths, [0, 20, 50, 100, 200, 400, np.inf])[0],
            "users",
        ),
        _figure(
            "The long tail",
            f"Films in tenths, most rated first: the first tenth has {head} of the ratings.",
            [f"{n + 1}" for n in range(10)],
            tenths,
            "ratings",
        ),
    ]
    if lab.has_ratings:
        counts = pd.concat([part["rating"] for part in every]).value_counts().sort_index()
        text = f"{counts.idxmax():g} stars are given most often."
        figures.insert(
            0, _figure("How users rate", text, [f"{star:g} ★" for star in counts.index], counts.tolist(), "ratings")
        )
    lead = (
        f"{n_users:,} users and {n_items:,} films. A tenth of the films has {head} of all ratings: the models must "
        "find what the rest has to offer."
    )
    return templates().data(lead, numbers, figures)


def _figure(title: str, text: str, labels: list[str], values: Any, unit: str) -> dict[str, Any]:
    top = max(*values, 1)
    bars = [
        {"label": name, "height": round(88 * value / top, 1), "text": f"{name}: {value:,} {unit}"}
        for name, value in zip(labels, values, strict=True)
    ]
    return {"title": title, "text": text, "bars": bars, "spoken": "; ".join(bar["text"] for bar in bars)}


def board(app: App) -> str:
    """The leaderboard of one metric as a table, with what may be said of the best."""
    ranking = app.lab.ranking(app.metric)
    if not ranking:
        path = app.lab.run.paths.metrics / "leaderboard.json"
        return templates().empty(
            "No leaderboard yet", f"`{app.lab.run.command_for(path)}` makes it; then open this page again."
        )
    rows = []
    for entry in ranking:
        value, seconds = entry["metrics"][app.metric], entry.get("fit_seconds")
        known = value.get("low") is not None
        row = {"label": label(entry["name"]), "about": app.lab.about(entry["name"]), "mean": value["mean"]}
        row |= {"low": value["low"] if known else value["mean"], "seconds": -1 if seconds is None else seconds}
        row["range"] = f"{value['low']:.3f} – {value['high']:.3f}" if known else "not measured"
        row["fitted"] = "–" if seconds is None else f"{seconds:.1f} s" if seconds >= 0.1 else "< 0.1 s"
        rows.append(row)
    kind = app.metric.split("@")[0].lower()
    meaning = next((text for name, text in MEANINGS.items() if kind.startswith(name)), "")
    return templates().board(_takeaway(app, ranking), meaning, label(app.metric), rows, _protocol(app.lab))


def _takeaway(app: App, ranking: list[dict[str, Any]]) -> str:
    if len(ranking) < 2 or app.metric.startswith("popularity_lift"):  # more of it is neither good nor bad
        return ""
    first, second = (entry["metrics"][app.metric] for entry in ranking[:2])
    better = "lowest" if app.metric.split("@")[0] in LOWER_IS_BETTER else "highest"
    text = (
        f"{label(ranking[0]['name'])} has the {better} {label(app.metric)}, {first['mean']:.3f}, before "
        f"{label(ranking[1]['name'])} with {second['mean']:.3f}."
    )
    p = app.lab.computed["p"].get(app.metric)
    if p is None:
        return text
    users = f"{first['n_users']:,} users" if first.get("n_users") else "the same users"
    verdict = "unlikely to be chance" if p < 0.05 else "well within what chance does"
    return f"{text} Compared user by user, the difference is {verdict}: paired permutation test, p = {p:.4f}, {users}."


def _protocol(lab: Lab) -> str:
    split = lab.tables.split
    given = ", ".join(f"{name} {value}" for name, value in split.params.items())
    relevant = f"relevant means rated {lab.tables.relevant_from:g} or more; " if lab.has_ratings else ""
    return (
        f"Measured on what no model had seen: {PARTS.get(split.name, 'the test part')} (split {split.name}: {given}); "
        f"{relevant}the whole catalogue is ranked. Intervals are bootstrap intervals over users."
    )
