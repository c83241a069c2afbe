"""What 07 finds for the application to show: leaders of every metric, groups of users, similar items liked later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from recsys_lib.data.catalogue import LOWER_IS_BETTER
from recsys_lib.data.interactions import order_column
from recsys_lib.evaluation.inference import permutation_p
from recsys_lib.evaluation.segments import thirds
from recsys_lib.models.base import Recommender
from recsys_lib.run.run import Tables


def p_of_leaders(per_user: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """By metric the p of the paired permutation test between its best two models; ``per_user`` as of evaluations."""
    values, found = pd.concat({name: table.set_index("user_id") for name, table in per_user.items()}, axis=1), {}
    for metric in values.columns.unique(1):
        known = values.xs(metric, axis=1, level=1).dropna(axis=1, how="all")
        best = known.mean().sort_values(ascending=metric.split("@")[0] in LOWER_IS_BETTER).index[:2]
        if len(best) == 2:
            pairs = known[best].dropna().to_numpy()
            found[metric] = float(permutation_p(pairs[:, :1] - pairs[:, 1:])[0])
    return found


def by_activity(per_user: Mapping[str, pd.DataFrame], history: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Means of every metric by a third of the users, as their histories are long, and by model."""
    values = pd.concat({name: table.set_index("user_id") for name, table in per_user.items()}, names=["model"])
    lengths = history["user_id"].value_counts().reindex(values.index.unique("user_id"))
    groups = thirds(lengths, ("short histories", "middling histories", "long histories"))
    groups = pd.Series(groups, lengths.index).reindex(values.index.get_level_values("user_id")).array
    means = {group: part.groupby("model").mean() for group, part in values.groupby(groups, observed=True)}
    return {group: {name: row.dropna().to_dict() for name, row in table.iterrows()} for group, table in means.items()}


def liked_later(models: Mapping[str, Recommender], tables: Tables) -> pd.Series:
    """Of the 10 items most similar to a user's last relevant one, by models that learn it, the share relevant later."""
    before, after = (part[part["rating"] >= tables.relevant_from] for part in (tables.history, tables.split.test))
    order = ["user_id", *filter(None, [order_column(before)])]
    last = before.sort_values(order, kind="stable").groupby("user_id")["item_id"].last().rename("last")
    pairs, shares = after.merge(last, left_on="user_id", right_index=True), pd.Series(dtype=float, name="liked later")
    for name, model in models.items():
        if any(getattr(type(model), own) != getattr(Recommender, own) for own in ("item_vectors", "_similarity")):
            similar = model.similar_items(last.unique(), 10)
            hits = pairs.merge(similar, left_on=["last", "item_id"], right_on=["item_id", "similar_item_id"])
            shares[name] = len(hits) / (10 * max(pairs["user_id"].nunique(), 1))
    return shares.sort_values(ascending=False, kind="stable").rename_axis("model")


def facts(per_user: Mapping[str, pd.DataFrame], tables: Tables, similar: pd.Series) -> dict[str, Any]:
    """All of it, as the application reads it: "p" by metric, "segments" by group and model, "similar" by model."""
    groups = by_activity(per_user, tables.history)
    return {"p": p_of_leaders(per_user), "segments": groups, "similar": similar.to_dict()}
