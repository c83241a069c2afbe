"""Lists with titles: users and films to show, titles looked up."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import order_column


def users_by_activity(history: pd.DataFrame, n: int) -> list:
    """Choose n users at equal steps of activity, from a short to a long history (10% to 90%)."""
    counts = history["user_id"].value_counts().sort_index(kind="stable").sort_values(kind="stable")
    places = np.linspace(0.1, 0.9, n) * (len(counts) - 1)
    return counts.index[places.round().astype(int)].tolist()


def genre_text(items: pd.DataFrame) -> pd.Series:
    """Genres of each item as one text, by item id."""
    return items.set_index("item_id")["genres"].map(lambda genres: ", ".join(genres))


def favourites(history: pd.DataFrame, items: pd.DataFrame, users: list, n: int) -> dict[Any, list[str]]:
    """Titles that each user rated best, the latest first among equals."""
    order = ["rating", *filter(None, [order_column(history)])]
    chosen = history[history["user_id"].isin(users)].sort_values([*order, "item_id"], ascending=False)
    best = chosen.groupby("user_id").head(n).merge(items[["item_id", "title"]], on="item_id", how="left")
    rated = {user: titles.tolist() for user, titles in best.groupby("user_id")["title"]}
    return {user: rated.get(user, []) for user in users}


def mean_overlap(lists: pd.DataFrame) -> float:
    """How many items the lists of two users share, on average over all pairs of users; 0 with fewer than two."""
    sets = [set(items) for _, items in lists.groupby("user_id")["item_id"]]
    shared = [len(first & second) for first, second in combinations(sets, 2)]
    return float(np.mean(shared)) if shared else 0.0


def well_known(history: pd.DataFrame, items: pd.DataFrame, n: int) -> list[str]:
    """Titles of the n most rated items that have no two first genres in common, so that they differ."""
    counts = history["item_id"].value_counts().rename("ratings")
    table = items.merge(counts, left_on="item_id", right_index=True)
    table = table.sort_values(["ratings", "item_id"], ascending=[False, True])
    first_genre = table["genres"].map(lambda genres: genres[0] if len(genres) else "")
    varied = table[~first_genre.duplicated()]
    return (varied if len(varied) >= n else table)["title"].head(n).tolist()


def genre_lover(history: pd.DataFrame, items: pd.DataFrame, n: int) -> dict[str, float]:
    """Ratings of a made-up new user: the n most rated items of the rarest genre that a tenth of the items have."""
    best = float(history["rating"].max())
    genres = items["genres"].explode().value_counts(normalize=True)
    frequent = genres[genres >= 0.1]
    if len(frequent):
        items = items[items["genres"].map(lambda listed: frequent.index[-1] in listed)]
    counts = history["item_id"].value_counts().rename("ratings")
    table = items.merge(counts, left_on="item_id", right_index=True)
    table = table.sort_values(["ratings", "item_id"], ascending=[False, True])
    return dict.fromkeys(table["title"].head(n), best)


def find_title(items: pd.DataFrame, text: str) -> Any:
    """Item id of the title that is, or else contains, a text; letters' case does not matter.

    Raises
    ------
    KeyError
        If no title contains it, or several do and none is it.

    Examples
    --------
    >>> films = pd.DataFrame({"item_id": [1, 2], "title": ["Alien", "Aliens"]})
    >>> find_title(films, "alien"), find_title(films, "ALIENS")
    (1, 2)
    """
    titles = items["title"].fillna("").str.casefold()
    matches = items[titles == text.casefold()]
    if matches.empty:
        matches = items[titles.str.contains(text.casefold(), regex=False)]
    if matches.empty:
        raise KeyError(f"no title contains {text!r}")
    if len(matches) > 1 and matches["title"].nunique() > 1:
        raise KeyError(f"{len(matches)} titles contain {text!r}: {'; '.join(matches['title'].head(5))}")
    return matches["item_id"].tolist()[0]
