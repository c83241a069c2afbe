"""Tables and sentences of the study of cold start: what models give without any item, and where little is known."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import pandas as pd

from recsys_lib.evaluation.new_users import curve
from recsys_lib.evaluation.task import Task
from recsys_lib.models.base import Recommender
from recsys_lib.models.lists import top_k

POPULAR = "cannot score: gets the most rated items, flagged as a fallback"
WITH_NOTHING = {  # what each class does with an empty history; models trained on a table of users may know more by id
    **dict.fromkeys(("ALS", "BPR", "ItemKNN", "AttributeKNN", "SequenceKNN", "EASE", "Blend", "Reranker"), POPULAR),
    "CausalTransformer": POPULAR,
    "Popularity": "its own list, the same for everybody",
    "Trending": "its own list: what is watched at the end of the data",
    "GenrePopularity": "its own list: popularity alone, since no genre is known",
    "NeuralHybrid": "its own list: the films with the highest predicted rating for an unknown user",
    "NeuralRanker": "its own list: what its bias and an empty history give, close to popularity",
}


def with_nothing(models: Mapping[str, Recommender], k: int = 10) -> pd.DataFrame:
    """List k films for a user of whom nothing is known.

    Returns
    -------
    DataFrame
        model, fallback (whether the most rated items answer), popular (how many of the k films are among the k most
        rated), answer (what its class says it does), milliseconds (shortest of three runs of ``recommend_new({})``).
    """
    rows = []
    for name, model in models.items():
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            listed = model.recommend_new({}, k)
            seconds.append(time.perf_counter() - start)
        fallback = bool(np.isnan(model.score(model.history_of({}).matrix)).all())
        most = model.train.item_ids[top_k(model.train.item_counts[None], k)[0][0]]
        row = {"model": name, "fallback": fallback, "popular": int(listed["item_id"].isin(most).sum())}
        rows.append(row | {"answer": WITH_NOTHING[type(model).__name__], "milliseconds": 1000 * min(seconds)})
    return pd.DataFrame(rows)


def films_needed(gained: pd.DataFrame) -> pd.Series:
    """From how many films on a model's interval lies above 0; NaN where it never does.

    Parameters
    ----------
    gained
        From :func:`gains`, one way to choose the films.

    Examples
    --------
    >>> films_needed(pd.DataFrame({"model": "a", "size": [0, 1, 3, 5], "low": [0.0, 0.1, -0.1, 0.2]})).to_dict()
    {'a': 5.0}
    """
    table = gained[gained["size"] >= 0].pivot(index="size", columns="model", values="low").sort_index()
    above = (table > 0)[::-1].cummin()[::-1]
    return above.idxmax().astype(float).where(above.any()).rename("films")


def gains(values: pd.DataFrame, over: str, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Paired differences to the model ``over`` at the same size: model, way, size, mean, low, high, n_users."""
    wide = values.pivot(index=["way", "size", "user_id"], columns="model", values="value")
    behind = wide.sub(wide[over], axis=0).drop(columns=over)
    return curve(behind.stack().rename("value").reset_index(), resamples=resamples, seed=seed)


def sentence(means: pd.DataFrame, needed: pd.Series) -> str:
    """Who leads at each number of films, and from how many on each model beats popularity.

    Parameters
    ----------
    means
        A row a model, a column a number of films.
    needed
        From :func:`films_needed`.
    """
    leads = [f"with none the best has {means[0].max():.3f}"] if 0 in means else []
    for size in sorted(size for size in means.columns if size > 0):
        films = "1 film" if size == 1 else f"{size} films"
        leads.append(f"with {films} `{means[size].idxmax()}` leads ({means[size].max():.3f})")
    texts = ["; ".join(leads)]
    for size, part in needed.dropna().groupby(needed):
        texts.append(f"better than popularity from {size:.0f} on: {', '.join(part.index)}")
    never = needed.index[needed.isna()]
    texts += [f"not surely better with {max(means.columns)}: {', '.join(never)}"] if len(never) else []
    text = ". ".join(part[0].upper() + part[1:] for part in texts)
    return f"{text}. (Better: the 95% interval of the paired difference lies above zero there and beyond.)"


def by_count(counts: np.ndarray, bounds: tuple[int, ...]) -> pd.Categorical:
    """Divide films or users by how many ratings they have, at fixed bounds.

    >>> by_count(np.array([0, 1, 4, 5, 70]), (1, 5, 50)).tolist()
    ['none', '1-4', '1-4', '5-49', '50 and more']
    """
    names = [str(a) if b - a == 1 else f"{a}-{b - 1}" for a, b in zip((0, *bounds), bounds, strict=False)]
    names[0] = "none" if bounds[0] == 1 else names[0]
    return pd.Categorical.from_codes(np.digitize(counts, bounds), [*names, f"{bounds[-1]} and more"], ordered=True)


def films_by_count(task: Task, bounds: tuple[int, ...] = (1, 5, 10, 20, 50)) -> pd.DataFrame:
    """Films of the catalogue and relevant ones outside it: item_id, ratings (how many the history has)."""
    counts = np.zeros(len(task.items), np.int64)
    counts[: task.known.n_items] = task.popularity
    return pd.DataFrame({"item_id": task.items, "ratings": by_count(counts, bounds)})


def users_by_count(task: Task, bounds: tuple[int, ...] = (1, 20, 40, 80, 160)) -> pd.DataFrame:
    """Users of the task: user_id, films (how many their history has)."""
    return pd.DataFrame({"user_id": task.users, "films": by_count(np.diff(task.histories.indptr), bounds)})


def sentence_known(recall: pd.DataFrame, by_length: pd.DataFrame, over: str) -> str:
    """Who recalls films with few ratings, and who leads for the shortest histories.

    Parameters
    ----------
    recall, by_length
        group, model, mean; by the ratings of a film, and by the films of a user.
    over
        The model to compare with.
    """
    best = recall.loc[recall.groupby("group", sort=False)["mean"].idxmax()]
    best = best[best["mean"] > 0]
    leads = ", ".join(f"{row.group} ratings `{row.model}` ({row.mean:.3f})" for row in best.itertuples())
    shortest = by_length["group"].iloc[0]
    short = by_length[by_length["group"] == shortest].set_index("model")["mean"]
    return (
        f"Best recall among films with {leads}. Among users with {shortest} films `{short.idxmax()}` leads "
        f"({short.max():.3f}; {over} {short[over]:.3f})."
    )
