"""How models serve users who come back: the same fitted models, evaluated on items of later sittings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from recsys_lib.evaluation import inference
from recsys_lib.evaluation.task import MAIN, Evaluation, NothingRelevantError, Task, against, evaluate
from recsys_lib.models.base import Recommender

GAPS = ("1h", "1D", "7D")
SAME = "same sitting"


def by_gap(
    models: Mapping[str, Recommender], task: Task, gaps: Iterable[str] = GAPS, *, k: int = 10
) -> dict[str, dict[str, Evaluation]]:
    """Evaluate models on the rest of the sitting in which the history ends, and on later sittings, by the pause before.

    Parameters
    ----------
    task
        Of a split that cuts each user's history in time; the models are fitted on its ``known``.
    gaps
        Pauses that part two sittings: see :meth:`Task.later_sittings`. The first also bounds the same sitting.

    Returns
    -------
    dict
        By visit ("same sitting", "> 1h", ...), then by model. Visits for which nobody has anything relevant are absent.
    """
    gaps = tuple(gaps)
    makers = {SAME: lambda: task.same_sitting(gaps[0])}
    makers |= {f"> {gap}": lambda gap=gap: task.later_sittings(gap) for gap in gaps}
    results = {}
    for visit, make in makers.items():
        try:
            part = make()
        except NothingRelevantError:
            continue
        results[visit] = {name: evaluate(model, part, (k,), whole=False) for name, model in models.items()}
    return results


def table(results: Mapping[str, Mapping[str, Evaluation]], baseline: str, *, by: str = MAIN) -> pd.DataFrame:
    """Leaderboard of each visit beside a baseline.

    Returns
    -------
    DataFrame
        visit, model, ``by`` with ``_low`` and ``_high``, n_users; ratio to the baseline with ratio_low and ratio_high,
        p_holm (corrected over all rows of the table) and distinct, as in :func:`recsys_lib.evaluation.task.against`;
        the best model of each visit first.
    """
    parts = []
    for visit, evaluations in results.items():
        means = pd.DataFrame({name: each.intervals.loc[by] for name, each in evaluations.items()}).T
        means = means.rename(columns={"mean": by, "low": f"{by}_low", "high": f"{by}_high"}).rename_axis("model")
        ratios = against(evaluations, [baseline], by=by).drop(columns=["baseline", "p_holm", "distinct"])
        part = means.reset_index().merge(ratios, how="left", on="model").astype({"n_users": int})
        parts.append(part.sort_values(by, ascending=False, kind="stable").assign(visit=visit))
    whole = pd.concat(parts, ignore_index=True)
    whole["p_holm"] = inference.holm(whole["p_permutation"].to_numpy())
    enough = whole["n_users"] >= inference.LEAST_USERS
    whole["distinct"] = (whole["p_holm"] < 1 - inference.LEVEL) & enough
    return whole[["visit", *whole.columns.drop("visit")]]
