"""Evaluate models on users who come back: the same fitted models, asked for items of later sittings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pandas as pd

from recsys_lib.evaluation import inference
from recsys_lib.evaluation.task import (
    BEYOND_AT,
    MAIN,
    Evaluation,
    NothingRelevantError,
    Task,
    against,
    from_ranked,
    rank_all,
    ranked_from_frames,
    some_of,
)
from recsys_lib.models.base import Recommender

SAME = "same sitting"
GAPS = {"more than an hour later": "1h", "more than a day later": "1D", "more than a week later": "7D"}


def by_gap(
    models: Mapping[str, Recommender], task: Task, evaluations: Mapping[str, Evaluation]
) -> dict[str, dict[str, Evaluation]]:
    """Evaluate models on the rest of the sitting in which the history ends, and on later sittings, by the pause before.

    Pauses are those of ``GAPS``, see :meth:`Task.later_sittings`; the first also bounds the same sitting. Of more than
    ``MOST_USERS`` users some, drawn by chance, are asked later.

    - ``task``: of a split that cuts each user's history in time.
    - ``evaluations``: of the models on the task: their lists are those for the same sitting, where models are served
      the same.

    Returns by visit ("same sitting", "more than an hour later", ...), then by model. Visits for which nobody has
    anything relevant are absent.
    """
    results = {}
    with suppress(NothingRelevantError):
        same = task.same_sitting(next(iter(GAPS.values())))
        results[SAME] = {}
        for name in models:
            lists = evaluations[name].lists
            ranked = ranked_from_frames(lists[lists["user_id"].isin(same.users)], same)
            results[SAME][name] = from_ranked(ranked, same, (BEYOND_AT,))
    if len(some := some_of(np.arange(len(task.users)))) < len(task.users):
        task = replace(task, test=task.test[task.test["user_id"].isin(task.users[some])])
    for visit, gap in GAPS.items():
        with suppress(NothingRelevantError):
            later = task.later_sittings(gap)
            ranked = {name: rank_all(model, later, BEYOND_AT, whole=False) for name, model in models.items()}
            results[visit] = {name: from_ranked(each, later, (BEYOND_AT,)) for name, each in ranked.items()}
    return results


def table(results: Mapping[str, Mapping[str, Evaluation]], baseline: str) -> pd.DataFrame:
    """Leaderboard of each visit beside a baseline.

    Returns a table: visit, model, ndcg@10 with ``_low`` and ``_high``, n_users; ratio to the baseline with ratio_low
    and ratio_high, p_holm (corrected over all rows of the table) and distinct, as in
    :func:`recsys_lib.evaluation.task.against`; the best model of each visit first.
    """
    parts = []
    for visit, evaluations in results.items():
        means = pd.DataFrame({name: each.intervals.loc[MAIN] for name, each in evaluations.items()}).T
        means = means.rename(columns={"mean": MAIN, "low": f"{MAIN}_low", "high": f"{MAIN}_high"}).rename_axis("model")
        ratios = against(evaluations, [baseline]).drop(columns=["baseline", "p_holm", "distinct"])
        part = means.reset_index().merge(ratios, how="left", on="model").astype({"n_users": int})
        parts.append(part.sort_values(MAIN, ascending=False, kind="stable").assign(visit=visit))
    whole = pd.concat(parts, ignore_index=True)
    whole["p_holm"] = inference.holm(whole["p_permutation"].to_numpy())
    whole["distinct"] = inference.distinct(whole["p_holm"], whole["n_users"])
    return whole[["visit", *whole.columns.drop("visit")]]
