"""Facts about the order of histories: how long they are, what repeats, what always follows what."""

from __future__ import annotations

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import order_column


def one_way(interactions: pd.DataFrame) -> dict[str, float]:
    """How often two items that stand next to each other do so in the same order.

    Returns pairs (of items that are neighbours three times or more, NaN shares where there are none), one_way
    (share of them that always come in the same order), coin (the share if a coin were tossed each time).

    >>> one_way(pd.DataFrame({"user_id": [1, 1, 2, 2, 3, 3], "item_id": [5, 6] * 3, "position": [0, 1] * 3}))["one_way"]
    1.0
    """
    rows = interactions.sort_values(["user_id", order_column(interactions)], kind="stable")
    users, (items, _) = rows["user_id"].to_numpy(), pd.factorize(rows["item_id"])
    next_to = (users[1:] == users[:-1]) & (items[1:] != items[:-1])
    first, then = items[:-1][next_to], items[1:][next_to]
    pair = pd.DataFrame({"low": np.minimum(first, then), "high": np.maximum(first, then), "up": first < then})
    counts = pair.groupby(["low", "high"])["up"].agg(["size", "sum"]).query("size >= 3")
    together = counts["size"].to_numpy()
    up = {"one_way": counts["sum"].to_numpy(), "coin": np.random.default_rng(0).binomial(together, 0.5)}
    shares = {
        name: float(np.mean((value == 0) | (value == together))) if len(counts) else float("nan")
        for name, value in up.items()
    }
    return {"pairs": len(counts), **shares}


def order_facts(interactions: pd.DataFrame) -> dict[str, float]:
    """Describe an order without times.

    Returns lengths of the histories (shortest, median, longest), repeats (share of rows whose item the user had
    before), targets_repeat (share of users whose last item is one that they had before), and :func:`one_way`.

    >>> facts = order_facts(pd.DataFrame({"user_id": [1, 1, 1, 2], "item_id": [5, 6, 5, 5], "position": [0, 1, 2, 0]}))
    >>> facts["repeats"], facts["targets_repeat"], facts["longest"]
    (0.25, 0.5, 3)
    """
    rows = interactions.sort_values(["user_id", order_column(interactions)], kind="stable")
    lengths = rows["user_id"].value_counts()
    again = rows.duplicated(["user_id", "item_id"])
    facts = {"shortest": int(lengths.min()), "median": float(lengths.median()), "longest": int(lengths.max())}
    last = ~rows["user_id"].duplicated(keep="last")
    return facts | {"repeats": float(again.mean()), "targets_repeat": float(again[last].mean()), **one_way(rows)}
