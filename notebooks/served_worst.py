"""The users whom a model serves worst, and what is unusual about them: a table of 07_evaluation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.preprocessing import normalize

from recsys_lib.evaluation.metrics import beyond_accuracy
from recsys_lib.evaluation.task import MAIN, Evaluation, Task


def served_worst(result: Evaluation, task: Task, *, n: int = 5, least: int = 5, metric: str = MAIN) -> pd.DataFrame:
    """Users whom a model serves worst, of those with ``least`` relevant items or more, and what is unusual about them.

    The lowest ``metric`` first; among equals those whose relevant items stand lowest in the whole ranking.

    Returns
    -------
    DataFrame
        user_id, the metric, n_relevant, median_rank (of the relevant items), history, popularity (median number of
        users who met the relevant items), similarity (cosine between the audiences of history and relevant items),
        genre_shift (total variation between genres of history and test), why.
    """
    table = user_traits(result, task).assign(**{metric: result.per_user[metric].to_numpy()})
    enough = table[table["n_relevant"] >= least]
    enough = enough if len(enough) >= n else table
    worst = enough.sort_values([metric, "median_rank"], ascending=[True, False]).head(n)
    return worst.assign(why=_reasons(worst, table)).reset_index(drop=True)


def user_traits(result: Evaluation, task: Task) -> pd.DataFrame:
    """Describe what may make users hard to serve, one row a user of the task."""
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
    "popularity": ("likes films few have rated (median {:.0f} ratings, others {:.0f})", -1),
    "similarity": ("likes what others with that history do not (similarity {:.2f}, median {:.2f})", -1),
    "genre_shift": ("changed genres ({:.0%} of the test is new in kind, others {:.0%})", 1),
}


def _reasons(worst: pd.DataFrame, everybody: pd.DataFrame) -> list[str]:
    """For each user the traits in the worse quarter of all users, the most extreme first."""
    texts = []
    for row in worst.to_dict("records"):
        reasons = []
        for trait, (text, direction) in _WHY.items():
            if trait in everybody and np.isfinite(row[trait]):
                beyond = (direction * everybody[trait] <= direction * row[trait]).mean()
                if beyond >= 0.75:
                    reasons.append((beyond, text.format(row[trait], everybody[trait].median())))
        named = "; ".join(text for _, text in sorted(reasons, reverse=True))
        texts.append(named or "nothing unusual in history, popularity or genres")
    return texts


def with_titles(
    failed: pd.DataFrame, result: Evaluation, task: Task, titles: pd.Series, *, shown: int = 3
) -> pd.DataFrame:
    """Beside each user the first titles that were listed, and relevant ones with the rank they had."""
    lists = result.lists[result.lists["rank"] <= shown]
    listed = lists.assign(title=lists["item_id"].map(titles)).groupby("user_id")["title"].agg("; ".join)
    places = result.positions.sort_values("rank")
    places = places[places["rank"] > 0].groupby("user_id").head(shown)
    text = places["item_id"].map(titles) + " (" + places["rank"].astype(str) + ")"
    missed = text.groupby(places["user_id"]).agg("; ".join)
    return failed.assign(listed=failed["user_id"].map(listed), liked_with_rank=failed["user_id"].map(missed))
