"""What the application shows, as functions of its choices that return HTML, or a figure for plotly.

A figure is a dict of traces and layout: the page draws it; plotly's Python half would only check it, for 11 MB a
session.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from recsys_lib.app.lab import Lab, NotPossibleError
from recsys_lib.app.state import MOST_MODELS, App
from recsys_lib.data.catalogue import LOWER_IS_BETTER, label, meaning
from recsys_lib.models.base import Recommender

UNITS = {"Blend": "z-score", "Popularity": "weighted ratings"}
COLOURS = ["#3b82b0", "#c2622d", "#3f8f5f", "#8a63b8"]
SHRINKAGE = 5  # ratings at the user's own mean that every genre starts with
MAP_SIZE = 300  # films


def image(film: Any) -> str:
    """The film's poster from the folder that ``POSTERS_DIR`` names, as a data address; "" where there is none."""
    folder = os.environ.get("POSTERS_DIR")
    for kind in ("jpg", "png", "webp") if folder and re.fullmatch(r"[\w-]+", str(film.id)) else ():
        file = Path(folder) / f"{film.id}.{kind}"
        if file.is_file() and file.stat().st_size < 300_000:
            return f"data:image/{kind.replace('jpg', 'jpeg')};base64,{base64.b64encode(file.read_bytes()).decode()}"
    return ""


_pieces = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_pieces.filters["commands"] = lambda text: Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))
_pieces.globals |= {"image": image, "most_models": MOST_MODELS}
html = _pieces.get_template("views.html").module  # its macros; everything they print is escaped
groups, picks, model_chips = html.groups, html.picks, html.model_chips  # these need no more than the choices


def new_user_list(app: App) -> str:
    """The films that the chosen model lists for the new user."""
    return user_list(app, "new user")


def user_list(app: App, who: str = "user", *, explained: bool = False) -> str:
    """The films that the chosen model lists for the chosen user; ``explained``: with the reasons of all of them."""
    user, rated, ask = _asked(app, who)
    more = {"candidates": app.lab.allowed(app.genre, app.years), "diversify": app.diversify}
    more |= {"diversity": app.diversity / 100} | ({"exclude_seen": app.hide_rated} if who == "user" else {})
    shown = _listed(app, app.model, ask, len(rated), **more)
    films = [row["film"] for row in shown["rows"]]
    opened = {film.id: details(app, film, user, rated) for film in films if explained or film.id == app.film}
    title = f"{len(films)} films for {f'user {user}' if who == 'user' else 'you'} by {shown['label']}"
    marks = {"verb": "open", "rated": rated, "opened": opened, "thumbs": who != "user"}
    return html.model_list(app, shown, title, app.lab.about(app.model), **marks)


def _asked(app: App, who: str) -> tuple[Any, dict[Any, float], Callable]:
    """Whom a list is for, as models take it; their ratings by item id; how a model is asked for it."""
    if who == "new user":
        return app.liked, app.liked, lambda model, **more: model.recommend_new(app.liked, app.k, **more)
    rated = app.lab.history_of(app.user).set_index("item_id")["rating"].to_dict()
    return app.user, rated, lambda model, **more: model.recommend([app.user], app.k, **more)


def _listed(app: App, name: str, ask: Callable, n: int | None = None, **more: Any) -> dict[str, Any]:
    """A model's list as the template takes it, or why there is none; ``n`` films are known of the user, if any."""
    shown = {"name": name, "label": label(name), "n": n, "rows": [], "few": 0, "instead": False, "file": ""}
    try:
        model = app.lab.model(name)
        if more.get("diversity") and more["diversify"] == "calibration" and model.genres is None:
            raise NotPossibleError(f"{label(name)} has learnt no genres: choose the other kind of diversity.")
        table = ask(model, **more)
        if table.empty:
            raise NotPossibleError("No film fits these choices: allow more years or another genre.")
    except NotPossibleError as error:
        return shown | {"failed": str(error)}
    instead = "fallback" in table and bool(table["fallback"].any())
    unit = "stars" if model.predicts_ratings else UNITS.get(app.lab.configs[name]["model"], "score (no unit)")
    unit = "ratings" if instead else unit
    form = "{:.1f}" if unit == "stars" else "{:.0f}" if "ratings" in unit else "{:.3g}"
    heights = table["score"] - min(0.0, table["score"].min())
    heights /= heights.max() or 1.0
    films = app.lab.films.loc[table["item_id"]]
    shown["rows"] = [
        {"rank": rank, "film": film, "value": form.format(score), "width": max(2, round(100 * height))}
        for rank, film, score, height in zip(table["rank"], films.itertuples(), table["score"], heights, strict=True)
    ]
    exported = table[["rank", "item_id", "score"]].assign(title=films["title"].array, year=films["year"].array)
    file = "data:text/csv;base64," + base64.b64encode(exported.to_csv(index=False).encode()).decode()
    return shown | {"few": model.few, "instead": instead, "unit": unit, "file": file, "failed": ""}


def details(app: App, film: Any, user: Any, rated: dict[Any, float]) -> str:
    """A film's facts, what speaks for it, similar films, and the data set's own page of it, where it has one."""
    lead, reasons = why(app, film.id, user, rated)
    best = next(iter(app.lab.explored["similar"]), app.model)
    similar = map(app.lab.film.get, app.lab.model(best).similar_items([film.id], 5)["similar_item_id"])
    return html.details(app.lab, film, lead, reasons, similar)


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
        text = row.reason.capitalize().replace("item", "film") if row.rest else app.lab.film[row.item_id].title
        rating = None if row.rest or not app.lab.has_ratings else rated.get(row.item_id)
        against, share = row.contribution < 0, f"{100 * row.size / total:.0f}%"
        reason = {"text": text, "rating": rating, "against": against, "width": round(100 * row.size / size.max())}
        reasons.append(reason | {"share": ("−" if against else "+") + share})
    lead = "Which films of the history moved the score, as shares of everything that moved it; + for it, − against it."
    if any((reason["rating"] or 3) < 3 and not reason["against"] for reason in reasons):
        lead += f" {label(app.model)} counts that a film was rated, so a low rating can speak for another film."
    return lead, reasons


def profile(app: App) -> str:
    """Who the user is, as far as it is known."""
    lab, table = app.lab, app.lab.history_of(app.user)
    numbers = {"films rated": len(table)}
    numbers |= {"mean rating": f"★ {table['rating'].mean():.2f}"} if lab.has_ratings else {}
    if "timestamp" in table:
        numbers["from"], numbers["until"] = _days(table["timestamp"].agg(["min", "max"]))
    return html.numbers(numbers | lab.facts.get(app.user, {}), f"User {app.user}")


def genres(app: App) -> dict[str, Any] | str:
    """The user's genres by mean rating, drawn to their own mean where ratings are few; nothing where none is known."""
    lab, history = app.lab, app.lab.history_of(app.user)
    has, ratings = lab.has_genre[lab.known.item_codes(history["item_id"])], history["rating"].to_numpy(float)
    counts, mean = has.sum(0).astype(int), ratings.mean()
    values = (ratings @ has + SHRINKAGE * mean) / (counts + SHRINKAGE) - mean if lab.has_ratings else counts
    order = [code for code in np.argsort(-values, kind="stable") if counts[code]]
    order = (order[:6] + order[6:][-3:])[::-1]
    means = [f", mean {ratings @ has[:, code] / counts[code]:.2f} ★" if lab.has_ratings else "" for code in order]
    bars = {"type": "bar", "orientation": "h", "x": values[order].tolist(), "hoverinfo": "y+text"}
    bars["y"] = [f"{lab.genres[code]} ({counts[code]})" for code in order]
    bars["hovertext"] = [lab.words(f"{counts[code]} films{more}") for code, more in zip(order, means, strict=True)]
    bars["marker"] = {"color": [COLOURS[int(values[code] < 0)] for code in order]}
    title = f"Stars from the mean {mean:.2f}" if lab.has_ratings else lab.words("Number of films")
    return _figure([bars], {"title": {"text": title}}, {}, 60 + 26 * max(3, len(order))) if order else ""


def _days(seconds: pd.Series) -> list[str]:
    return pd.to_datetime(seconds, unit="s").dt.strftime("%-d %b %Y").tolist()


def history(app: App) -> str:
    """Everything the user has rated, with any column of the items table."""
    lab, table = app.lab, app.lab.history_of(app.user).reset_index(drop=True)
    films, items = (frame.loc[table["item_id"]].reset_index(drop=True) for frame in (lab.films, lab.items))
    table = table.assign(title=films["title"], column=items[app.column])
    if app.order != "latest":
        text = app.order == "title" or not pd.api.types.is_numeric_dtype(table[app.order])
        key = (lambda values: values.astype(str)) if text else None
        table = table.sort_values(app.order, key=key, ascending=app.order != "rating", kind="stable")
    shown = [", ".join(v) if isinstance(v, list) else "–" if pd.isna(v) else v for v in table["column"].astype(object)]
    cells = {"Film": [html.link(film) for film in films.loc[table.index].itertuples()]}
    cells |= {"Rating": map(html.stars, table["rating"])} if lab.has_ratings else {}
    cells |= {label(app.column): shown}
    cells |= {"When": _days(table["timestamp"])} if "timestamp" in table else {}
    return Markup("<h2>History</h2>") + html.table("History", list(cells), list(zip(*cells.values(), strict=True)))


def read_ratings(lab: Lab, content: bytes) -> pd.DataFrame:
    """Match ratings of a Letterboxd or IMDb export with the films here, by title and year; a row a rating.

    Columns: given (title and year), item_id (None where no film matches), rating (on the scale of the data; NaN where
    there is none). NotPossibleError if the file has no columns of such an export.
    """
    reading = {"dtype": str, "keep_default_na": False, "encoding_errors": "replace", "on_bad_lines": "skip"}
    table = pd.read_csv(io.BytesIO(content), **reading).rename(columns=lambda name: name.strip().lower())
    imdb = "your rating" in table
    table = table.rename(columns={"your rating": "rating"} if imdb else {"name": "title"})
    if not {"title", "rating"} <= {*table}:
        raise NotPossibleError("The file has no columns Name and Rating (Letterboxd) or Title and Your Rating (IMDb).")
    given = [f"{row['title']} ({row['year']})" if row.get("year") else row["title"] for row in table.to_dict("records")]
    values = pd.to_numeric(table["rating"], errors="coerce")
    known = {_key(text): item for text, item in lab.film_labels.items()}
    items = pd.Series([known.get(_key(text)) for text in given], dtype=object)
    rating = (2 * values / (10 if imdb or values.max() > 5 else 5) * lab.scale[1]).round() / 2
    return pd.DataFrame({"given": given, "item_id": items, "rating": rating.clip(*lab.scale)})


def _key(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower().replace("&", "and")).strip()


def similar_lists(app: App) -> str:
    """A film, and those that each model finds most similar to it."""
    film, shares = app.lab.film[app.similar_to], app.lab.explored["similar"]

    def ask(model: Recommender) -> pd.DataFrame:
        return model.similar_items([film.id], app.k).set_axis(["of", "item_id", "score", "rank"], axis=1)

    lists = [_listed(app, name, ask) for name in sorted(app.models, key=lambda name: -shares.get(name, 0))]
    return html.similar(app, film, lists, _times(lists), shares)


def compare_lists(app: App) -> str:
    """The same user's lists by several models, and what the user rated next."""
    _, rated, ask = _asked(app, app.who)
    after = app.lab.rated_next(app.user) if app.who == "user" else {}
    lists = [_listed(app, name, ask, len(rated)) for name in app.models]
    for each in lists:
        each["hits"] = sum(row["film"].id in after for row in each["rows"])
    times = _times(lists)
    following = sorted(filter(app.lab.film.get, after), key=lambda item: (-times[item], -after[item]))
    return html.compare(app, lists, times, after, [*map(app.lab.film.get, following)])


def _times(lists: list[dict[str, Any]]) -> Counter:
    """In how many lists each film is, by id."""
    return Counter(row["film"].id for each in lists for row in each["rows"])


def data(app: App) -> str:
    """What the data is, in a few numbers and three small figures."""
    lab, known, test = app.lab, app.lab.known, app.lab.test
    n_rated, n = len(np.union1d(known.item_ids, test.item_ids)), known.matrix.nnz + test.matrix.nnz
    numbers = {"users": f"{known.n_users:,}", "films that models can list": f"{known.n_items:,}", "ratings": f"{n:,}"}
    numbers["films with ratings in the test part alone"] = f"{n_rated - known.n_items:,}"
    numbers["of all user-film pairs are rated"] = f"{100 * n / (known.n_users * n_rated):.1f}%"
    if known.seconds is not None:
        both = np.append(known.seconds, test.seconds)
        numbers["collected"] = " – ".join(_days(pd.Series([both.min(), both.max()])))
    tenths = [int(part.sum()) for part in np.array_split(np.sort(known.item_counts)[::-1], 10)]
    head = f"{100 * tenths[0] / sum(tenths):.0f}%"
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
    return html.data(lead, numbers, figures)


def board(app: App) -> str:
    """The leaderboard of one metric, and what may be said of the best."""
    lab, kind = app.lab, app.metric.split("@")[0]
    rows = lab.ranking(app.metric)
    if not rows:
        command = lab.run.command_for(lab.run.paths.metrics / "leaderboard.json")
        return html.message(f"`{command}` makes it; then open this page again.", "empty", "No leaderboard yet")
    best = {"popularity_lift": ""}.get(kind, "lowest" if kind in LOWER_IS_BETTER else "highest")
    for row in rows:
        row["about"] = lab.about(row["name"])
    says, p = meaning(app.metric).replace("item", "film"), lab.explored["p"].get(app.metric)
    return html.board(lab, label(app.metric), says, rows, best, p)


def leaderboard(app: App) -> dict[str, Any] | str:
    """Means and 95% intervals of one metric, best first."""
    rows = app.lab.ranking(app.metric)[::-1]
    means, names = [row["mean"] for row in rows], [row["label"] for row in rows]
    error = {"color": COLOURS[0], "symmetric": False}
    error["array"] = [0 if row["high"] is None else row["high"] - row["mean"] for row in rows]
    error["arrayminus"] = [0 if row["low"] is None else row["mean"] - row["low"] for row in rows]
    points = {"x": means, "y": names, "hovertext": names, "error_x": error, "xhoverformat": ".3f"}
    points["marker"] = {"size": 9, "color": COLOURS[0]}
    title = {"text": f"{label(app.metric)}<br>mean and 95% interval", "font": {"size": 12}}  # fits a phone
    return _figure([points], {"title": title}, {}, 90 + 24 * len(rows)) if rows else ""


def trade_offs(app: App) -> dict[str, Any]:
    """One metric against another, a point a model and group of users; some metrics are known of all users alone."""
    traces, wanted = [], (app.against, app.metric)
    for number, (group, models) in enumerate(app.lab.segments.items()):
        known = {label(name): means for name, means in models.items() if {*wanted} <= {*means}}
        x, y = ([means[metric] for means in known.values()] for metric in wanted)
        marker = {"size": 10, "color": COLOURS[number], "symbol": number}
        traces.append({"name": group, "x": x, "y": y, "hovertext": [*known], "marker": marker})
    return _figure(traces, *({"title": {"text": label(metric)}} for metric in wanted))


def film_map(app: App) -> dict[str, Any]:
    """The best-known films in a plane: near to each other where the same users rated them."""
    lab = app.lab
    own = lab.known.item_codes([app.similar_to])[0]
    pool = lab.best_known[:MAP_SIZE]
    pool = np.append(pool[pool != own], own)
    _, vectors = np.linalg.eigh(lab.alike(pool))
    x, y = (vectors[:, [-1, -2]] * np.sign(vectors[np.abs(vectors[:, -1]).argmax(), -1])).T.tolist()
    names, n = lab.films["label"].iloc[pool].tolist(), len(pool) - 1
    marker = {"color": COLOURS[:1] * n + COLOURS[1:2], "size": [6] * n + [14], "opacity": 1, "line": {"width": 0}}
    points = {"x": x, "y": y, "hovertext": names, "hoverinfo": "text", "marker": marker}
    bare = {"showticklabels": False, "showgrid": False}
    title = lab.words(f"Map of films by common audiences<br>The large one is {names[-1]}.")
    return _figure([points], bare | {"title": {"text": title}}, bare)


def _figure(traces: list[dict[str, Any]], x: dict[str, Any], y: dict[str, Any], height: int = 430) -> dict[str, Any]:
    """Points, unless traces say else, as plotly draws them; the page's theme gives the colours of text and axes."""
    layout: dict[str, Any] = {"height": height, "margin": {"l": 10, "r": 16, "t": 16, "b": 40}}
    layout |= {"legend": {"orientation": "h", "yref": "container", "y": 0}, "font": {"family": "system-ui", "size": 13}}
    layout |= dict.fromkeys(("paper_bgcolor", "plot_bgcolor"), "rgba(0,0,0,0)")
    layout |= {f"{name}axis": {"automargin": True, "zeroline": False, **axis} for name, axis in (("x", x), ("y", y))}
    return {"data": [{"type": "scatter", "mode": "markers", **trace} for trace in traces], "layout": layout}
