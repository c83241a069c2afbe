"""From tables to the HTML of each part of the page. No state, no widgets; everything printed is escaped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from recsys_lib.demo.lab import HUES, LOWER_IS_BETTER, Lab, NotPossibleError, label
from recsys_lib.demo.state import LONGEST, MOST_MODELS, SHORTEST, TABS, State

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
CAPITALS = ("ndcg", "mrr", "map", "auc", "rmse", "mae")


def measure(name: str) -> str:
    """A measure's name, for people.

    >>> measure("ndcg@10"), measure("r_precision"), measure("ndcg_graded@5")
    ('NDCG@10', 'R precision', 'NDCG graded@5')
    """
    words = [word.upper() if word in CAPITALS else word for word in name.replace("@", "_@").split("_")]
    text = " ".join(words).replace(" @", "@")
    return text[:1].upper() + text[1:]


@cache
def _environment() -> Environment:
    folder = FileSystemLoader(Path(__file__).parent / "html")
    return Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, cache_size=50
    )


def render(template: str, **values: Any) -> str:
    """Fill a template of the folder ``html``."""
    return _environment().get_template(f"{template}.html").render(**values)


def page(lab: Lab, state: State) -> str:
    """The frame: tabs, controls, and an empty place for every part."""
    limits = {"shortest": SHORTEST, "longest": LONGEST, "most": MOST_MODELS}
    return render("page", lab=lab, state=state, tabs=TABS, **limits)


def stopped(problem: str) -> str:
    """The page that stands in for everything when the demo cannot open; a command between backquotes stands out."""
    text, *command = problem.split("`")[:2]
    titles = {"is missing": "The lab has not been run yet", "holds no": "The lab has not been run yet"}
    titles["cannot be read"] = "The lab could not be opened"
    title = next((t for part, t in titles.items() if part in problem), "These results do not belong together")
    return render("error", title=title, text=text.strip(" :"), command="".join(command))


# ---- proposals of the search fields --------------------------------------------------------------------------


def person_options(lab: Lab, name: str, text: str) -> str:
    """People whose id fits what was typed."""
    options = []
    for person in lab.find_people(text):
        facts = list(lab.facts_of(person).values())[:3]
        more = " · ".join([f"{lab.n_ratings[lab.person_code(person)]} films", *facts])
        options.append({"value": person, "text": f"Person {person}", "more": more})
    return render("options", options=options, name=name, text=text, none="Nobody has such an id.")


def film_options(lab: Lab, name: str, text: str) -> str:
    """Films whose title fits what was typed, or the well known ones before anything is."""
    films = lab.find_films(text) if text.strip() else lab.well_known(8)
    options = [{"value": film.id, "text": film.title, "more": film.year or ""} for film in films]
    return render("options", options=options, name=name, text=text, none="No title has these words.")


# ---- one person ----------------------------------------------------------------------------------------------


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _day(second: int) -> str:
    return datetime.fromtimestamp(int(second), UTC).strftime("%-d %b %Y")


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
        first=_day(history["timestamp"].min()) if dated else "",
        last=_day(history["timestamp"].max()) if dated else "",
        tastes=_tastes(lab, history),
    )


def person_history(lab: Lab, state: State) -> str:
    """Everything a person has rated, in a table that can be sorted."""
    history = lab.history_of(state.person)
    dated = "timestamp" in history
    seconds = history["timestamp"] if dated else np.zeros(len(history), int)
    rows = [
        {"film": film, "rating": rating, "second": int(second), "day": _day(second) if dated else ""}
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


def person_list(lab: Lab, state: State, *, live: bool = True) -> str:
    """The films that a model puts before a person; ``live``: the reasons come when they are asked for."""
    model = lab.model(state.model)
    more = {lab.diversity_argument: state.diversity / 100} if lab.diversity_argument and state.diversity else {}
    candidates = lab.candidates(state.genre, state.since, state.until)
    user = lab.person_id(state.person)
    table = model.recommend([user], state.k, exclude_seen=state.unseen, candidates=candidates, **more)
    title = f"{len(table)} films for person {state.person}, by {label(state.model)}"
    nothing = "No film fits these choices. Allow more years or another genre."
    rows = _rows(lab, table)
    for row in rows if not live else ():
        row["why"] = Markup(why(lab, state, "person", row["film"].id))
    return render("list", rows=rows, title=title, note="", scope="person", nothing=nothing)


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
            "share": f"{'−' if part < 0 else ''}{_percent(abs(part) / total)}",
            "width": round(100 * abs(part) / top),
        })  # fmt: skip
    from_films = table["item_id"].notna().any()
    lead = (
        "What moves this score most:" if from_films else f"{label(state.model)} puts it here whatever one has watched."
    )
    return render("why", reasons=reasons if from_films else [], lead=lead)


# ---- a newcomer ----------------------------------------------------------------------------------------------


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
    table = lab.model(state.model).recommend_new(liked, state.k)
    fallback = bool(table["fallback"].any())
    title = f"{len(table)} films for you, by {label(state.model)}"
    note = "Nothing is known of you yet, so these are the films that most people know." if fallback else ""
    return render("list", rows=_rows(lab, table), title=title, note=note, scope="new", nothing="There is no film left.")


# ---- lists side by side --------------------------------------------------------------------------------------


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
        columns.append({"label": label(name), "more": "", "rows": rows, "failed": ""})
    failed = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    return columns + [{"label": label(name), "more": "", "rows": [], "failed": text} for name, text in failed.items()]


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


# ---- the data and the results --------------------------------------------------------------------------------


def results_data(lab: Lab, state: State) -> str:
    """What the data is, in a few numbers and three small figures."""
    split = lab.prepared.split
    every = [split.train, split.valid, split.test]
    n = sum(map(len, every))
    n_users = lab.history.n_users
    n_items = pd.concat([part["item_id"] for part in every]).nunique()
    numbers = {"people": f"{n_users:,}", "films": f"{n_items:,}", "ratings" if lab.has_ratings else "views": f"{n:,}"}
    numbers["of all pairs known"] = _percent(n / (n_users * n_items), 1)
    numbers["films in the part the models learn from"] = f"{lab.history.n_items:,}"
    if "timestamp" in split.train:
        seconds = pd.concat([part["timestamp"] for part in every])
        numbers["collected"] = f"{_day(seconds.min())} – {_day(seconds.max())}"
    popularity = np.sort(lab.history.matrix.getnnz(axis=0))[::-1]
    few = max(1, len(popularity) // 10)
    head = popularity[:few].sum() / popularity.sum()
    lead = (
        f"{n_users:,} people and {n_items:,} films. A tenth of the films has {_percent(head)} of all ratings: "
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
    labels = ["< 20", "20 +", "50 +", "100 +", "200 +", "400 +"]
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
        "text": f"Films in tenths by how many know them: the first has {_percent(head)} of the ratings.",
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
        rows=[_board_row(model, metric, low, wide) for model in ranking],
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


def _board_row(model: dict[str, Any], metric: str, low: float, wide: float) -> dict[str, Any]:
    value = model["metrics"][metric]
    mean = value["mean"]
    bottom = mean if value.get("low") is None else value["low"]
    top = mean if value.get("high") is None else value["high"]
    seconds = model.get("fit_seconds")
    known = value.get("low") is not None
    return {
        "label": label(model["name"]),
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
        f"Measured on the part of the data that no model had seen (split {split.name}: {given}); {liked}"
        "the whole catalogue is ranked. The line of each model is its 95 % interval, the mark its mean."
    )
