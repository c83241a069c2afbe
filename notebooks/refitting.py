"""The same models fitted again, for 07_evaluation: on other splits of the data, on fewer users, with other seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

import numpy as np
import pandas as pd

from recsys_lib.data.splits import Split, temporal_user
from recsys_lib.evaluation import inference
from recsys_lib.evaluation.metrics import ranking
from recsys_lib.evaluation.refits import fitted_again
from recsys_lib.evaluation.task import MAIN, NothingRelevantError, Task, evaluate, lists_given, some_of
from recsys_lib.models.base import Recommender


def on_splits(
    models: Mapping[str, Recommender],
    parts: Iterable[Split],
    relevant_from: float | None,
    tables: Mapping[str, pd.DataFrame],
    *,
    by: str = MAIN,
    **changes: int | None,
) -> pd.DataFrame:
    """A metric of models fitted again on the history of each split, of the users that it tests.

    Returns a table: a row a user (their mean, where several splits test them), a column a model; intervals and
    ratios are :func:`recsys_lib.evaluation.inference.intervals` and ``ratios`` of it. ``changes`` go to
    :func:`recsys_lib.evaluation.refits.fitted_again`.
    """
    tested = []
    for part in parts:
        with suppress(NothingRelevantError):
            task = Task.from_split(part, relevant_from)
            again = {name: fitted_again(model, task.known, tables, **changes) for name, model in models.items()}
            results = [evaluate(model, task, resamples=1, whole=False).per_user[by] for model in again.values()]
            tested.append(pd.DataFrame(dict(zip(models, results, strict=True))).set_index(task.users))
    return pd.concat(tested).groupby(level=0).mean() if tested else pd.DataFrame(columns=list(models), dtype=float)


def other_ties(split: Split) -> Split:
    """Cut the same rows as :func:`recsys_lib.data.splits.temporal_user` did, with ties in time decided by another hash.

    The hash is of the ids of user and item: under other names of the items it gives another order.
    """
    whole = pd.concat([split.history, split.test], ignore_index=True)
    renamed = whole.assign(own=whole["item_id"], item_id=whole["item_id"].astype(str) + "'")
    again = temporal_user(renamed, **split.params)
    parts = [part.assign(item_id=part["own"])[whole.columns] for part in (again.train, again.valid, again.test)]
    return Split(*parts, name=split.name, params={**split.params, "ties": "another hash"})


def users_curve(
    models: Mapping[str, Recommender],
    task: Task,
    shares: tuple[float, ...] = (0.1, 0.3, 1.0),
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Measure what more data is worth: NDCG@10 of models fitted again on the histories of a part of the users.

    The parts are drawn at random and lie inside one another. Every user of the task (``MOST_USERS`` at most) is served,
    from their own whole history, whether the model was fitted on it or not, so that a point differs from the next by
    what the model knows of other users alone.

    Returns a table: model, size (users fitted on), mean, low, high, n_users.
    """
    order = np.random.default_rng(0).permutation(task.known.n_users)
    values, everybody = {}, some_of(np.arange(len(task.users)))
    for size in sorted({max(2, round(share * len(order))) for share in shares}):
        some = task.known.only(np.sort(order[:size]))
        for name, model in models.items():
            codes = lists_given(fitted_again(model, some, tables or {}), task, everybody)
            values[name, size] = ranking.ndcg(ranking.judge(codes, task.relevant[everybody]), 10)
    frame = pd.DataFrame(values, columns=pd.MultiIndex.from_tuples(values, names=["model", "size"]))
    return inference.intervals(frame[list(models)]).reset_index()


def other_seeds(
    models: Mapping[str, Recommender],
    seconds: Mapping[str, float | None],
    task: Task,
    tables: Mapping[str, pd.DataFrame],
    *,
    seeds: int = 3,
    within: float = 2.0,
    by: str = MAIN,
) -> dict[str, np.ndarray]:
    """Measure what the seed does: models with a seed that took up to ``within`` seconds are fitted again with others.

    A model that is an average of several with seeds of their own (``by_seed`` gives them) is not fitted again: those
    are evaluated one by one, whatever the time it took. By model: the metric of each user and seed, (n_users, seeds)
    float64.
    """
    table = {}
    for name, model in models.items():
        members, quick = model.by_seed, (seconds.get(name) or np.inf) <= within
        if len(members) < 2 and seeds > 1 and has_seed(model) and quick:
            members = [fitted_again(model, task.known, tables, shift=shift) for shift in range(seeds)]
        if len(members) > 1:
            columns = [evaluate(member, task, resamples=1, whole=False).per_user[by] for member in members]
            table[name] = np.stack([column.to_numpy(float) for column in columns], axis=1)
    return table


def has_seed(model: Recommender) -> bool:
    """Whether chance has a part in fitting a model."""
    return model.params().get("seed") is not None
