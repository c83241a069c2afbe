"""Results by group of users and of items, to see for whom a model works."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import rows_of
from recsys_lib.evaluation import inference
from recsys_lib.evaluation.metrics import beyond_accuracy
from recsys_lib.evaluation.task import BEYOND_AT, MAIN, Evaluation, Task, rating_summary

COLD = 10  # items with fewer ratings in the history are cold
KNOWN = [-1, 0, COLD - 1, 49, np.inf]  # bounds of never rated, cold, warm and popular


def thirds(values: np.ndarray, names: tuple[str, str, str], unit: str = "{:.0f}") -> pd.Categorical:
    """Divide users or items into three parts of about the same size, named with their bounds.

    >>> thirds(np.array([1, 2, 3, 4, 5, 6]), ("few", "some", "many")).categories.tolist()
    ['few (1-2)', 'some (3-4)', 'many (5-6)']
    """
    values = np.asarray(values, np.float64)
    low, high = np.nanquantile(values, [1 / 3, 2 / 3])
    part = np.where(values <= low, 0, np.where(values <= high, 1, 2))
    part[~np.isfinite(values)] = -1
    labels = []
    for code, name in enumerate(names):
        own = values[part == code]
        bounds = f"{unit.format(own.min())}-{unit.format(own.max())}" if len(own) else "none"
        labels.append(f"{name} ({bounds})")
    return pd.Categorical.from_codes(part, labels, ordered=True)


def user_groups(task: Task, users: pd.DataFrame | None = None) -> pd.DataFrame:
    """Group the users of a task: user_id, then a categorical column a segment.

    By activity, taste (mainstream or not), favourite genre, and age and gender where the data has them.
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
        names = ["under 18", "18-24", "25-34", "35-49", "50 and over"]
        table["age"] = pd.cut(ages, [0, 18, 25, 35, 50, 200], right=False, labels=names).array
    if users is not None and "gender" in users:
        table["gender"] = pd.Categorical(users.set_index("user_id")["gender"].reindex(task.users).to_numpy())
    return table


def _favourite_genre(task: Task) -> pd.Categorical:
    """The genre that each user has most in excess of the mean share; beyond the five commonest "other"."""
    matrix, names = task.genres
    shares = beyond_accuracy.genre_shares(task.histories.sign(), matrix)
    excess = np.nan_to_num(shares - np.nanmean(shares, axis=0))
    favourite = pd.Series(np.array(names)[excess.argmax(axis=1)])
    kept = favourite.value_counts().index[:5]
    return pd.Categorical(favourite.where(favourite.isin(kept), "other"), [*kept, "other"])


def item_groups(task: Task) -> pd.DataFrame:
    """Group the catalogue and relevant items outside it: item_id, then a categorical column a segment.

    By number of ratings in the history ("known"), and by year where years are known.
    """
    counts = np.zeros(len(task.items), np.int64)
    counts[: task.known.n_items] = task.popularity
    table = pd.DataFrame({"item_id": task.items})
    names = ["never rated before", f"cold (under {COLD})", f"warm ({COLD}-49)", "popular (50 and more)"]
    table["known"] = pd.cut(counts, KNOWN, labels=names)
    if task.content is not None and "year" in task.content:
        years = task.content.set_index("item_id")["year"].reindex(task.items).astype("Float64")
        if years.notna().any():
            table["year"] = thirds(years.to_numpy(np.float64, na_value=np.nan), ("old", "newer", "newest"))
    return table


def by_user(results: Mapping[str, Evaluation], groups: pd.DataFrame, *, metric: str = MAIN) -> pd.DataFrame:
    """Mean of a metric with its interval for each model and group of users.

    Columns: segment, group, model, mean, low, high, n_users; groups in their own order.
    """
    values = pd.DataFrame({name: result.per_user[metric].to_numpy() for name, result in results.items()})
    parts = {}
    for segment in groups.columns.drop("user_id"):
        for group in groups[segment].cat.categories:
            parts[segment, group] = values[(groups[segment] == group).to_numpy()]
    return _described(parts)


def by_item(results: Mapping[str, Evaluation], task: Task, groups: pd.DataFrame) -> pd.DataFrame:
    """Recall@10 of each model among the relevant items of a group: mean over users who have such items, with interval.

    Columns: segment, group, model, mean, low, high, n_users.
    """
    user = rows_of(task.relevant)
    hits = {name: result.positions["rank"].between(1, BEYOND_AT).to_numpy() for name, result in results.items()}
    parts = {}
    for segment in groups.columns.drop("item_id"):
        codes = groups[segment].cat.codes.to_numpy()[task.relevant.indices]
        for code, group in enumerate(groups[segment].cat.categories):
            own = codes == code
            size = np.bincount(user[own], minlength=len(task.users))
            counts = {n: np.bincount(user[own], hit[own], minlength=len(task.users)) for n, hit in hits.items()}
            parts[segment, group] = pd.DataFrame({n: count[size > 0] / size[size > 0] for n, count in counts.items()})
    return _described(parts)


def _described(parts: Mapping[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Means with intervals of each group that is not empty."""
    tables = {key: inference.intervals(values) for key, values in parts.items() if len(values)}
    return pd.concat(tables, names=["segment", "group", "model"]).reset_index()


def reliability(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predicted beside given ratings: rows divided by their prediction into ten parts of the same size.

    Columns: predicted (mean), rating (mean), low, high (95% of the mean, normal), rows.
    """
    part = pd.qcut(predictions["predicted"].rank(method="first"), min(10, len(predictions)), labels=False)
    grouped = predictions.groupby(part)
    table = grouped.agg(predicted=("predicted", "mean"), rating=("rating", "mean"), rows=("rating", "size"))
    margin = 1.96 * grouped["rating"].std().fillna(0) / np.sqrt(table["rows"])
    return table.assign(low=table["rating"] - margin, high=table["rating"] + margin).reset_index(drop=True)


def errors_by_kind(predictions: pd.DataFrame, task: Task) -> pd.DataFrame:
    """RMSE and MAE of predicted ratings by how many ratings of the item, and of the user, were known before.

    Columns: of ("item" or "user"), group, rmse, low, high, mae, rows.
    """
    names = ["none", f"under {COLD}", f"{COLD}-49", "50 and more"]
    known = {
        "item": (task.known.item_codes(predictions["item_id"]), task.popularity),
        "user": (task.known.user_codes(predictions["user_id"]), np.diff(task.known.matrix.indptr)),
    }
    rows = []
    for kind, (codes, counts) in known.items():
        part = pd.cut(np.where(codes >= 0, counts[codes], 0), KNOWN, labels=names)
        for name, chosen in predictions.groupby(part, observed=True):
            rmse, mae = rating_summary(chosen).values()
            error = {"rmse": rmse["mean"], "low": rmse["low"], "high": rmse["high"], "mae": mae["mean"]}
            rows.append({"of": kind, "group": name, **error, "rows": len(chosen)})
    return pd.DataFrame(rows)
