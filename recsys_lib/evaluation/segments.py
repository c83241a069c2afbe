"""For whom does a model work? The same results, by kinds of people and kinds of films."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from recsys_lib.data.interactions import Histories
from recsys_lib.evaluation import inference
from recsys_lib.evaluation.metrics import beyond_accuracy
from recsys_lib.evaluation.task import BEYOND_AT, MAIN, Evaluation, Task, ndcg_given, rating_summary
from recsys_lib.models.base import Recommender

COLD = 10  # films with fewer ratings in the history are cold


def thirds(values: np.ndarray, names: tuple[str, str, str], unit: str = "{:.0f}") -> pd.Categorical:
    """Divide people or films into three parts of about the same size, named with their bounds.

    >>> thirds(np.array([1, 2, 3, 4, 5, 6]), ("few", "some", "many")).categories.tolist()
    ['few (1-2)', 'some (3-4)', 'many (5-6)']
    """
    values = np.asarray(values, np.float64)
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return pd.Categorical(np.full(len(values), None, dtype=object), categories=list(names), ordered=True)
    low, high = np.quantile(known, [1 / 3, 2 / 3])
    part = np.where(values <= low, 0, np.where(values <= high, 1, 2))
    part[~np.isfinite(values)] = -1
    labels = []
    for code, name in enumerate(names):
        own = values[part == code]
        bounds = f"{unit.format(own.min())}-{unit.format(own.max())}" if len(own) else "none"
        labels.append(f"{name} ({bounds})")
    return pd.Categorical.from_codes(part, labels, ordered=True)


def people(task: Task, users: pd.DataFrame | None = None) -> pd.DataFrame:
    """Kinds of people: activity, mainstream or not, genre taste, and age and gender where the data has them.

    Returns
    -------
    DataFrame
        user_id (those of the task), then one categorical column a way of dividing.
    """
    table = pd.DataFrame({"user_id": task.users})
    lengths = np.diff(task.histories.indptr)
    table["activity"] = thirds(lengths, ("few ratings", "some ratings", "many ratings"))
    seen = task.histories.sign() @ (task.popularity / task.known.n_users)
    share = np.divide(seen, lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)
    table["taste"] = thirds(100 * share, ("niche", "middling", "mainstream"), "{:.0f}%")
    if task.genres is not None:
        table["genre"] = _favourite_genre(task)
    if users is not None and "age" in users:
        ages = users.set_index("user_id")["age"].reindex(task.users)
        bounds, names = [0, 18, 25, 35, 50, 200], ["under 18", "18-24", "25-34", "35-49", "50 and over"]
        table["age"] = pd.cut(ages, bounds, right=False, labels=names).to_numpy()
        table["age"] = pd.Categorical(table["age"], names, ordered=True)
    if users is not None and "gender" in users:
        table["gender"] = pd.Categorical(users.set_index("user_id")["gender"].reindex(task.users).to_numpy())
    return table


def _favourite_genre(task: Task, most: int = 5) -> pd.Categorical:
    """The genre each person has most in excess of everybody's share; beyond the ``most`` commonest "other"."""
    matrix, names = task.genres
    shares = beyond_accuracy.genre_shares(task.histories.sign(), matrix)
    excess = np.nan_to_num(shares - np.nanmean(shares, axis=0))
    favourite = pd.Series(np.array(names)[excess.argmax(axis=1)])
    kept = favourite.value_counts().index[:most]
    return pd.Categorical(favourite.where(favourite.isin(kept), "other"), [*kept, "other"])


def films(task: Task) -> pd.DataFrame:
    """Kinds of films: cold or warm, and old or new where years are known.

    Returns
    -------
    DataFrame
        item_id (catalogue and relevant films outside it), then one categorical column a way of dividing.
    """
    counts = np.zeros(len(task.items), np.int64)
    counts[: task.known.n_items] = task.popularity
    table = pd.DataFrame({"item_id": task.items})
    bounds = [-1, 0, COLD - 1, 49, np.inf]
    names = ["never rated before", f"cold (under {COLD})", f"warm ({COLD}-49)", "popular (50 and more)"]
    table["known"] = pd.Categorical.from_codes(np.digitize(counts, bounds, right=True) - 1, names, ordered=True)
    if task.content is not None and "year" in task.content:
        years = task.content.set_index("item_id")["year"].reindex(task.items).astype("Float64")
        if years.notna().any():
            table["year"] = thirds(years.to_numpy(np.float64, na_value=np.nan), ("old", "newer", "newest"))
    return table


def by_person(results: Mapping[str, Evaluation], table: pd.DataFrame, *, metric: str = MAIN) -> pd.DataFrame:
    """Mean of a metric with its interval for each model and each kind of people.

    Returns
    -------
    DataFrame
        segment, group, model, mean, low, high, n_users; groups in their own order.
    """
    values = pd.DataFrame({name: result.per_user[metric].to_numpy() for name, result in results.items()})
    rows = []
    for segment in table.columns.drop("user_id"):
        for group in table[segment].cat.categories:
            chosen = values[(table[segment] == group).to_numpy()]
            if len(chosen):
                rows.append(_described(chosen, segment, group))
    return pd.concat(rows, ignore_index=True)


def _described(values: pd.DataFrame, segment: str, group: str) -> pd.DataFrame:
    described = inference.intervals(values).rename_axis("model").reset_index()
    described.insert(0, "group", group)
    described.insert(0, "segment", segment)
    return described


def by_film(results: Mapping[str, Evaluation], task: Task, table: pd.DataFrame, *, k: int = BEYOND_AT) -> pd.DataFrame:
    """Recall@k of each model among relevant films of one kind: mean over people who have such films, with interval.

    Returns
    -------
    DataFrame
        segment, group, model, mean, low, high, n_users.
    """
    person = np.repeat(np.arange(len(task.users)), task.n_relevant)
    found = {name: result.positions["rank"].between(1, k).to_numpy() for name, result in results.items()}
    rows = []
    for segment in table.columns.drop("item_id"):
        codes = table[segment].cat.codes.to_numpy()[task.relevant.indices]
        for code, group in enumerate(table[segment].cat.categories):
            own = codes == code
            size = np.bincount(person[own], minlength=len(task.users))
            hits = {n: np.bincount(person[own], hit[own], minlength=len(task.users)) for n, hit in found.items()}
            recalls = pd.DataFrame({name: hit[size > 0] / size[size > 0] for name, hit in hits.items()})
            if len(recalls):
                rows.append(_described(recalls, segment, group))
    return pd.concat(rows, ignore_index=True)


def learning_curve(
    models: Mapping[str, Recommender], task: Task, sizes: tuple[int, ...] = (1, 2, 5, 10, 20, 50), *, k: int = 10
) -> pd.DataFrame:
    """How soon a model knows a person: NDCG@k when only the last few ratings of each are shown to it.

    Everybody with at least as many ratings as the largest size takes part in every point; the models are not fitted
    again, and everything seen stays out of the lists.

    Returns
    -------
    DataFrame
        model, size, mean, low, high, n_users.
    """
    lengths = np.diff(task.histories.indptr)
    chosen = np.flatnonzero(lengths >= max(sizes))
    rows = []
    for name, model in models.items():
        columns = {size: ndcg_given(model, task, chosen, partial(Histories.first, size=size), k) for size in sizes}
        if len(chosen):
            rows.append(inference.intervals(pd.DataFrame(columns)).rename_axis("size").reset_index().assign(model=name))
    return (
        pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["size", "mean", "low", "high", "model"])
    )


def curve_of_people(
    models: Mapping[str, Recommender],
    task: Task,
    shares: tuple[float, ...] = (0.1, 0.3, 1.0),
    *,
    items: pd.DataFrame | None = None,
    users: pd.DataFrame | None = None,
    k: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """What more data is worth: NDCG@k of models fitted again on the histories of a part of the people.

    The parts are drawn at random and lie inside one another. Everybody in the task is served, from their own whole
    history, whether the model was fitted on it or not, so that a point differs from the next by what the model knows
    of other people alone.

    Returns
    -------
    DataFrame
        model, size (people fitted on), mean, low, high, n_users.
    """
    order = np.random.default_rng(seed).permutation(task.known.n_users)
    everybody, rows = np.arange(len(task.users)), []
    sizes = sorted({max(2, round(share * len(order))) for share in shares})
    for name, model in models.items():
        columns = {}
        for size in sizes:
            some = task.known.only(np.sort(order[:size]))
            columns[size] = ndcg_given(model.fresh().fit(some, items=items, users=users), task, everybody, k=k)
        rows.append(inference.intervals(pd.DataFrame(columns)).rename_axis("size").reset_index().assign(model=name))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["size", "mean", "model"])


def reliability(predictions: pd.DataFrame, bins: int = 10) -> pd.DataFrame:
    """Predicted beside given ratings: rows divided by their prediction into parts of the same size.

    Returns
    -------
    DataFrame
        predicted (mean), rating (mean), low, high (95 % of the mean, normal), rows.
    """
    part = pd.qcut(predictions["predicted"].rank(method="first"), min(bins, len(predictions)), labels=False)
    grouped = predictions.groupby(part)
    table = grouped.agg(predicted=("predicted", "mean"), rating=("rating", "mean"), rows=("rating", "size"))
    margin = 1.96 * grouped["rating"].std().fillna(0) / np.sqrt(table["rows"])
    return table.assign(low=table["rating"] - margin, high=table["rating"] + margin).reset_index(drop=True)


def errors_by_kind(predictions: pd.DataFrame, task: Task) -> pd.DataFrame:
    """RMSE and MAE of predicted ratings by how many ratings of the film, and of the person, were known before.

    Returns
    -------
    DataFrame
        of ("film" or "person"), group, rmse, low, high, mae, rows.
    """
    names = ["none", f"under {COLD}", f"{COLD}-49", "50 and more"]
    of_people = np.diff(task.known.matrix.indptr)
    known = {
        "film": (task.known.item_codes(predictions["item_id"]), task.popularity),
        "person": (task.known.user_codes(predictions["user_id"]), of_people),
    }
    rows = []
    for kind, (codes, counts) in known.items():
        part = np.digitize(np.where(codes >= 0, counts[codes], 0), [1, COLD, 50])
        for code, name in enumerate(names):
            chosen = predictions[part == code]
            if len(chosen):
                found = rating_summary(chosen)
                error = {"rmse": found["rmse"]["mean"], "low": found["rmse"]["low"], "high": found["rmse"]["high"]}
                rows.append({"of": kind, "group": name, **error, "mae": found["mae"]["mean"], "rows": len(chosen)})
    return pd.DataFrame(rows)


def served_worst(result: Evaluation, task: Task, *, n: int = 5, least: int = 5, metric: str = MAIN) -> pd.DataFrame:
    """People whom a model serves worst, of those with ``least`` relevant films or more, and what is unusual about them.

    The lowest ``metric`` first; among equals those whose relevant films stand lowest in the whole ranking.

    Returns
    -------
    DataFrame
        user_id, the metric, n_relevant, median_rank (of the relevant films), history, popularity (median number of
        people who met the relevant films), similarity (cosine between the audiences of history and relevant films),
        genre_shift (total variation between genres of history and test), why.
    """
    table = person_traits(result, task).assign(**{metric: result.per_user[metric].to_numpy()})
    enough = table[table["n_relevant"] >= least]
    enough = enough if len(enough) >= n else table
    worst = enough.sort_values([metric, "median_rank"], ascending=[True, False]).head(n)
    return worst.assign(why=_reasons(worst, table)).reset_index(drop=True)


def person_traits(result: Evaluation, task: Task) -> pd.DataFrame:
    """What may make a person hard to serve, one row a person of the task."""
    places = result.positions
    counts = np.zeros(len(task.items))
    counts[: task.known.n_items] = task.popularity
    ranks = places["rank"].where(places["rank"] > 0, task.known.n_items)
    grouped = pd.DataFrame({"rank": ranks, "met": counts[task.relevant.indices]}).groupby(places["user_id"])
    medians = grouped.median()
    table = pd.DataFrame({"user_id": task.users, "n_relevant": task.n_relevant})
    table["median_rank"], table["popularity"] = medians["rank"].to_numpy(), medians["met"].to_numpy()
    table["history"] = np.diff(task.histories.indptr)
    inside = task.relevant[:, : task.known.n_items].sign()
    tastes = [normalize(part @ task.embedding) for part in (task.histories.sign(), inside)]
    table["similarity"] = (tastes[0] * tastes[1]).sum(axis=1)
    if task.genres is not None:
        shares = [beyond_accuracy.genre_shares(part, task.genres[0]) for part in (task.histories.sign(), inside)]
        table["genre_shift"] = np.abs(shares[0] - shares[1]).sum(axis=1) / 2
    return table


_WHY = {
    "history": ("little history ({:.0f} ratings, median {:.0f})", -1),
    "popularity": ("likes films few have met (median {:.0f} people, others {:.0f})", -1),
    "similarity": ("likes what others with that history do not (likeness {:.2f}, median {:.2f})", -1),
    "genre_shift": ("changed genres ({:.0%} of the test is new in kind, others {:.0%})", 1),
}


def _reasons(worst: pd.DataFrame, everybody: pd.DataFrame) -> list[str]:
    """For each person the traits in the worse quarter of everybody, the most extreme first."""
    texts = []
    for row in worst.to_dict("records"):
        found = []
        for trait, (text, direction) in _WHY.items():
            if trait in everybody and np.isfinite(row[trait]):
                beyond = (direction * everybody[trait] <= direction * row[trait]).mean()
                if beyond >= 0.75:
                    found.append((beyond, text.format(row[trait], everybody[trait].median())))
        named = "; ".join(text for _, text in sorted(found, reverse=True))
        texts.append(named or "nothing unusual in history, popularity or genres")
    return texts


def with_titles(
    failed: pd.DataFrame, result: Evaluation, task: Task, titles: pd.Series, *, shown: int = 3
) -> pd.DataFrame:
    """Beside each person the first titles that were listed, and relevant ones with the rank they had."""
    lists = result.lists[result.lists["rank"] <= shown]
    listed = lists.assign(title=lists["item_id"].map(titles)).groupby("user_id")["title"].agg("; ".join)
    places = result.positions.sort_values("rank")
    places = places[places["rank"] > 0].groupby("user_id").head(shown)
    text = places["item_id"].map(titles) + " (" + places["rank"].astype(str) + ")"
    missed = text.groupby(places["user_id"]).agg("; ".join)
    return failed.assign(listed=failed["user_id"].map(listed), liked_with_rank=failed["user_id"].map(missed))
