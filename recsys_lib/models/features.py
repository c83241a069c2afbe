"""Features of an interaction: of the person, of the film, of its genres and of the moment.

They are fitted on training rows only. For a training row itself they are what they would be had the row not been there
(leave-one-out): otherwise the mean rating of a film with three ratings would carry a third of the answer.

Leaving one out has a trace of its own: within one film, the mean of the *other* ratings falls as the row's own
rating rises. A model that knows the film's id can learn to undo it (Prokhorenkova and others, "CatBoost: unbiased
boosting with categorical features", 2018); :meth:`Features.out_of_fold` has none of it, at the price of thinner
statistics. Shrinkage damps it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import as_ids, codes_of
from recsys_lib.data.splits import Split
from recsys_lib.files import read_json, read_npz, replacing_folder, write_json, write_npz

DAY = 86_400  # seconds
MAX_WORDS = 100  # columns of people with more different words say who somebody is, and are left out
FORMAT = 1  # of the folders that `save` writes


@dataclass(frozen=True)
class Feature:
    """One column of the table of features.

    Attributes
    ----------
    name
        Of the column.
    group
        user, item, genre, time or demographic.
    kind
        "number", "flag" (0 or 1) or "category".
    source
        What it is made from: the tables' columns.
    meaning
        In words, with its unit.
    """

    name: str
    group: str
    kind: str
    source: str
    meaning: str


def _numbers(group: str, source: str, **meanings: str) -> list[Feature]:
    return [Feature(name, group, "number", source, meaning) for name, meaning in meanings.items()]


PEOPLE = [
    *_numbers(
        "user",
        "user_id",
        user_count="log(1 + interactions of the person)",
        user_popularity="mean of log(1 + interactions) of the person's films: how mainstream the person is",
    ),
    *_numbers(
        "user",
        "user_id, rating",
        user_mean="mean rating of the person, shrunk to everybody's",
        user_std="spread of the person's ratings (standard deviation)",
        user_liked="share of the person's ratings that are relevant, shrunk to everybody's",
    ),
    *_numbers("user", "user_id, year", user_year_distance="years between the film and the mean film of the person"),
]
FILMS = [
    *_numbers("item", "item_id", item_count="log(1 + interactions of the film)"),
    *_numbers(
        "item",
        "item_id, rating",
        item_mean="mean rating of the film, shrunk to everything's",
        item_std="spread of the film's ratings (standard deviation)",
        item_liked="share of the film's ratings that are relevant, shrunk to everything's",
        item_raters="mean of the mean ratings of the people who rated the film: how lenient they are",
    ),
    *_numbers("item", "year", item_year="year of release"),
    *_numbers("item", "year, timestamp", item_age="years from the film's release to the interaction"),
]
GENRES = [
    *_numbers("genre", "genres", genre_number="number of genres of the film"),
    *_numbers(
        "genre",
        "genres, rating",
        genre_mean="mean rating of the film's genres, shrunk to everything's",
        genre_affinity="how far above the own mean the person rates the film's genres, shrunk to 0",
    ),
    *_numbers("genre", "genres, user_id", genre_share="share of the person's interactions in the film's genres"),
]
TIMES = [
    Feature("hour", "time", "category", "timestamp", "hour of the day (UTC)"),
    Feature("weekday", "time", "category", "timestamp", "day of the week, 0 is Monday (UTC)"),
    Feature("month", "time", "category", "timestamp", "month of the year"),
    Feature("weekend", "time", "flag", "timestamp", "Saturday or Sunday (UTC)"),
    *_numbers(
        "time",
        "user_id, timestamp",
        user_place="log(1 + interactions of the person up to then)",
        user_since_first="days since the person's first interaction",
        user_since_last="days since the person's latest interaction",
    ),
    *_numbers(
        "time",
        "item_id, timestamp",
        item_place="log(1 + interactions of the film up to then)",
        item_since_first="days since the film's first interaction",
        item_recent="log(1 + interactions of the film in the days just before)",
    ),
]


@dataclass(frozen=True)
class _Rows:
    """Rows as codes; with their own ratings if they are the training rows themselves."""

    user: np.ndarray  # (n,) int64, -1 where unknown
    item: np.ndarray  # (n,) int64, -1 where unknown
    when: np.ndarray | None  # (n,) int64
    rating: np.ndarray | None = None  # (n,) float64, only for training rows

    @property
    def own(self) -> int:
        """1 if the statistics hold the rows themselves, which then are taken out."""
        return int(self.rating is not None)


class Timeline:
    """The moments of each group (a person or a film), ready to be counted up to any moment.

    Group and time are packed into one sorted integer, so that any number of questions is one binary search.

    Parameters
    ----------
    codes : ndarray of int64, (n,)
        Group of each moment, 0 to n_groups - 1.
    when : ndarray of int64, (n,)
        UNIX seconds.

    Examples
    --------
    >>> timeline = Timeline.of(np.array([0, 0, 1]), np.array([10, 30, 20]), n_groups=2)
    >>> timeline.until(np.array([0, 0, 1, -1]), np.array([9, 30, 99, 30]))
    array([0, 2, 1, 0])
    """

    def __init__(self, keys: np.ndarray, starts: np.ndarray, origin: int, span: int) -> None:
        self.keys, self.starts, self.origin, self.span = keys, starts, int(origin), int(span)

    @classmethod
    def of(cls, codes: np.ndarray, when: np.ndarray, n_groups: int) -> Timeline:
        """Sort the moments of all groups."""
        origin = when.min(initial=0) if len(when) == 0 else when.min()
        span = (int(when.max()) - int(origin) if len(when) else 0) + 2  # one moment to spare between two groups
        if n_groups * span >= 2**63:
            raise ValueError(f"{n_groups:,} groups over {span / DAY:,.0f} days are more than 64 bits can order")
        keys = np.sort(codes * span + (when - origin))
        return cls(keys, np.searchsorted(keys, np.arange(n_groups + 1) * span), origin, span)

    def _position(self, codes: np.ndarray, when: np.ndarray) -> np.ndarray:
        """How many keys are at or before (group, moment)."""
        since = np.clip(when - self.origin, -1, self.span - 1)
        return np.searchsorted(self.keys, np.maximum(codes, 0) * self.span + since, side="right")

    def until(self, codes: np.ndarray, when: np.ndarray) -> np.ndarray:
        """How many moments of the group are at or before the given one, (n,) int64; 0 for code -1."""
        return np.where(codes >= 0, self._position(codes, when) - self.starts[np.maximum(codes, 0)], 0)

    def since_first(self, codes: np.ndarray, when: np.ndarray, own: int = 0) -> np.ndarray:
        """Seconds since the group's first moment, (n,) float64; 0 where none is at or before the given one."""
        before = self.until(codes, when) > own
        first = self.keys[np.where(before, self.starts[np.maximum(codes, 0)], 0)] - codes * self.span + self.origin
        return np.where(before, when - first, 0).astype(np.float64)

    def since_last(self, codes: np.ndarray, when: np.ndarray, own: int = 0) -> np.ndarray:
        """Seconds since the group's latest moment, (n,) float64; NaN where none is at or before the given one."""
        before = self.until(codes, when) > own
        place = np.where(before, self._position(codes, when) - 1 - own, 0)
        return np.where(before, when - (self.keys[place] - codes * self.span + self.origin), np.nan)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """What :meth:`from_arrays` reads."""
        return {f"{name}.keys": self.keys, f"{name}.starts": self.starts, f"{name}.clock": [self.origin, self.span]}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], name: str) -> Timeline:
        """Take back what :meth:`arrays` gave."""
        return cls(arrays[f"{name}.keys"], arrays[f"{name}.starts"], *arrays[f"{name}.clock"])


def _shrunk(total: np.ndarray, count: np.ndarray, prior: np.ndarray | float, strength: float) -> np.ndarray:
    """Mean that starts from a prior worth ``strength`` observations."""
    return (total + strength * prior) / np.maximum(count + strength, 1e-12)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean; NaN where there is nothing."""
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=np.asarray(count) > 0)


class Features:
    """Features of interactions, fitted on training rows only.

    What the data lacks is left out: no time features without timestamps, no rating features where all ratings are
    the same (implicit feedback), no genre or demographic features without such columns. What cannot be said of a row
    (the spread of one rating, say) is NaN.

    Parameters
    ----------
    shrinkage
        How many ratings the overall mean counts for in shrunk means.
    relevant_from
        Ratings from here on count as liked.
    recent_days
        Length of the window of ``item_recent``.

    Examples
    --------
    >>> train = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5], "rating": [5.0, 3.0, 4.0]})
    >>> features = Features(shrinkage=0).fit(train)
    >>> features.transform(pd.DataFrame({"user_id": [2], "item_id": [6]}))[["user_mean", "item_mean"]].values.tolist()
    [[4.0, 3.0]]
    >>> features.leave_one_out()["item_mean"].tolist()  # film 5: the other rating; film 6 has no other
    [4.0, nan, 5.0]
    """

    def __init__(self, *, shrinkage: float = 5.0, relevant_from: float = 4.0, recent_days: int = 30) -> None:
        self.shrinkage, self.relevant_from, self.recent_days = shrinkage, relevant_from, recent_days

    def params(self) -> dict[str, Any]:
        """Arguments by name."""
        return {"shrinkage": self.shrinkage, "relevant_from": self.relevant_from, "recent_days": self.recent_days}

    # ---- fitting -------------------------------------------------------------------------------------------------

    def fit(self, train: pd.DataFrame, *, items: pd.DataFrame | None = None, users: pd.DataFrame | None = None) -> Self:
        """Count and sum the training rows.

        Parameters
        ----------
        train
            user_id, item_id and, where known, rating and timestamp; a pair at most once.
        items, users
            Tables with content: year and genres of items, any columns of users.

        Raises
        ------
        ValueError
            If there are no training rows.
        """
        if len(train) == 0:
            raise ValueError("features need at least one training row")
        self.tables = {"items": items, "users": users}
        self.frame = train.reset_index(drop=True)
        self.user_ids = _known_ids(train["user_id"], users, "user_id")
        self.item_ids = _known_ids(train["item_id"], items, "item_id")
        rating = train["rating"].to_numpy(np.float64) if "rating" in train else np.ones(len(train))
        self.rows = _Rows(*self._codes(train), rating)
        self.has_ratings = bool(np.ptp(rating) > 0)
        self.arrays: dict[str, np.ndarray] = {}
        self._fit_content(items)
        self._fit_counts()
        self._fit_genres()
        self._fit_people(users)
        self.timelines = {}
        if self.rows.when is not None:
            for name, ids in (("user", self.user_ids), ("item", self.item_ids)):
                self.timelines[name] = Timeline.of(getattr(self.rows, name), self.rows.when, len(ids))
        return self

    def _codes(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Codes of people and films, and times. The rating column is never looked at."""
        when = frame["timestamp"].to_numpy(np.int64) if "timestamp" in frame else None
        return codes_of(frame["user_id"], self.user_ids), codes_of(frame["item_id"], self.item_ids), when

    def _fit_content(self, items: pd.DataFrame | None) -> None:
        """Years and genres of films; genres as the index arrays of a sparse matrix."""
        year = np.full(len(self.item_ids), np.nan)
        listed = pd.Series([], dtype=str)
        if items is not None:
            codes = codes_of(items["item_id"], self.item_ids)
            if "year" in items:
                year[codes] = items["year"].astype("Float64").to_numpy(np.float64, na_value=np.nan)
            if "genres" in items:
                listed = pd.Series(items["genres"].to_numpy(), index=codes).explode().dropna().sort_index()
        names, indices = np.unique(as_ids(listed), return_inverse=True)
        lengths = np.bincount(listed.index.to_numpy(np.int64), minlength=len(self.item_ids))
        self.arrays |= {"year": year, "genre_names": names.astype(str), "genre_indices": indices.astype(np.int64)}
        self.arrays["genre_indptr"] = np.concatenate([[0], np.cumsum(lengths)])

    def _fit_counts(self) -> None:
        """Numbers and sums of ratings a person and a film."""
        rows, liked = self.rows, (self.rows.rating >= self.relevant_from).astype(np.float64)
        for name, codes, size in (("user", rows.user, len(self.user_ids)), ("item", rows.item, len(self.item_ids))):
            for what, weights in (("n", None), ("sum", rows.rating), ("squares", rows.rating**2), ("liked", liked)):
                self.arrays[f"{name}_{what}"] = np.bincount(codes, weights, minlength=size).astype(np.float64)
        self.arrays["total"] = np.array([len(rows.user), rows.rating.sum(), liked.sum()])
        popularity = np.log1p(self.arrays["item_n"])[rows.item]
        self.arrays["user_popularity"] = np.bincount(rows.user, popularity, minlength=len(self.user_ids))
        mean = _mean(self.arrays["user_sum"], self.arrays["user_n"])[rows.user]
        self.arrays["item_raters"] = np.bincount(rows.item, mean, minlength=len(self.item_ids))
        year = self.arrays["year"][rows.item]
        dated = ~np.isnan(year)
        self.arrays["user_years"] = np.bincount(rows.user, np.where(dated, year, 0), minlength=len(self.user_ids))
        self.arrays["user_dated"] = np.bincount(rows.user, dated, minlength=len(self.user_ids))

    def _fit_genres(self) -> None:
        """Numbers and sums of ratings a genre, and a person and genre."""
        n_genres, n_users = len(self.arrays["genre_names"]), len(self.user_ids)
        row, genre = self._row_genres(self.rows.item)
        rating, cell = self.rows.rating[row], self.rows.user[row] * n_genres + genre
        self.arrays["genre_n"] = np.bincount(genre, minlength=n_genres).astype(np.float64)
        self.arrays["genre_sum"] = np.bincount(genre, rating, minlength=n_genres)
        self.arrays["user_genre_n"] = np.bincount(cell, minlength=n_users * n_genres).astype(np.float64)
        self.arrays["user_genre_sum"] = np.bincount(cell, rating, minlength=n_users * n_genres)

    def _fit_people(self, users: pd.DataFrame | None) -> None:
        """Demographics: numbers as they are, words as codes in the vocabulary of the people in training."""
        self.demographics: list[Feature] = []
        columns = [] if users is None else [column for column in users.columns if column != "user_id"]
        seen = self.arrays["user_n"] > 0
        for column in columns:
            codes = codes_of(users["user_id"], self.user_ids)
            values = pd.Series(users[column].to_numpy(), index=codes).reindex(range(len(self.user_ids)))
            kind = "number" if pd.api.types.is_numeric_dtype(values) else "category"
            name, meaning = f"user_{column}", f"{column} of the person"
            if column.startswith("zip"):
                name, meaning = "user_region", "first character of the zip code"
                values, kind = values.astype("string").str[:1], "category"
            if kind == "category":
                words = values.astype("string").fillna("").to_numpy(dtype=str)
                vocabulary = np.setdiff1d(np.unique(words[seen]), [""])
                if len(vocabulary) > MAX_WORDS:
                    continue
                self.arrays[f"{name}.words"], values = vocabulary, codes_of(words, vocabulary)
            self.arrays[name] = np.asarray(values, dtype=np.float64 if kind == "number" else np.int64)
            self.demographics.append(Feature(name, "demographic", kind, f"users: {column}", meaning))

    def _row_genres(self, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each pair of a row and a genre of its film: row numbers and genre codes."""
        indptr = self.arrays["genre_indptr"]
        lengths = np.where(item >= 0, np.diff(indptr)[item], 0)
        row = np.repeat(np.arange(len(item)), lengths)
        within = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return row, self.arrays["genre_indices"][np.repeat(np.where(item >= 0, indptr[:-1][item], 0), lengths) + within]

    # ---- the table -----------------------------------------------------------------------------------------------

    @property
    def features(self) -> list[Feature]:
        """The columns that this data allows, in order."""
        lacking = set() if self.has_ratings else {"rating"}
        lacking |= set() if self.timelines else {"timestamp"}
        lacking |= set() if len(self.arrays["genre_names"]) else {"genres"}
        lacking |= set() if np.isfinite(self.arrays["year"]).any() else {"year"}
        fixed = [*PEOPLE, *FILMS, *GENRES, *TIMES]
        kept = [feature for feature in fixed if not lacking & set(feature.source.split(", "))]
        flags = [
            Feature(f"genre_{name}", "genre", "flag", "genres", f"{name} is among the film's genres")
            for name in self.arrays["genre_names"]
        ]
        return [*kept, *flags, *self.demographics]

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Features of rows that are not training rows.

        Parameters
        ----------
        frame
            user_id, item_id and, if there was one in training, timestamp; other columns are not looked at.

        Returns
        -------
        DataFrame
            A row for each, with the columns :attr:`features`.
        """
        if self.timelines and "timestamp" not in frame:
            raise ValueError("the features were fitted with timestamps, and these rows have none")
        return self._table(_Rows(*self._codes(frame)))

    def leave_one_out(self, places: np.ndarray | None = None) -> pd.DataFrame:
        """Features of the training rows, each as if it alone had not been there.

        Parameters
        ----------
        places : ndarray of int, optional
            Which rows, by their place in the training table; by default all, in their order.
        """
        self._need_rows()
        if places is None:
            return self._table(self.rows)
        rows = self.rows
        when = None if rows.when is None else rows.when[places]
        return self._table(_Rows(rows.user[places], rows.item[places], when, rows.rating[places]))

    def out_of_fold(self, folds: int = 5, seed: int = 0) -> pd.DataFrame:
        """Features of the training rows, in their order, each from the training rows of the other folds."""
        self._need_rows()
        fold = np.random.default_rng(seed).integers(folds, size=len(self.frame))
        parts = []
        for number in range(folds):
            fitted = Features(**self.params()).fit(self.frame[fold != number], **self.tables)
            parts.append(fitted.transform(self.frame[fold == number]).set_index(np.flatnonzero(fold == number)))
        return pd.concat(parts).sort_index()[[feature.name for feature in self.features]]

    def _need_rows(self) -> None:
        if self.rows is None:
            raise ValueError("features read from disk do not hold the training rows; fit them again to get theirs")

    def _table(self, rows: _Rows) -> pd.DataFrame:
        """All columns that this data allows."""
        columns = {**self._of_people(rows), **self._of_films(rows), **self._of_genres(rows)}
        columns |= self._of_times(rows) | self._of_demographics(rows)
        table = {}
        for feature in self.features:
            values = columns[feature.name]
            table[feature.name] = values if feature.kind == "category" else np.asarray(values, dtype=np.float32)
        return pd.DataFrame(table)

    def _of(self, name: str, codes: np.ndarray, minus: Any = 0.0) -> np.ndarray:
        """Stored values of people or films; 0 where unknown; without the rows' own part."""
        return np.where(codes >= 0, self.arrays[name][codes], 0.0) - minus

    def _overall(self, rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
        """Mean rating and share of liked ratings, (n,) each, without each row's own."""
        n, total, liked = self.arrays["total"]
        if not rows.own:
            return np.full(len(rows.user), total / n), np.full(len(rows.user), liked / n)
        others = max(n - 1, 1)
        return (total - rows.rating) / others, (liked - (rows.rating >= self.relevant_from)) / others

    def _statistics(self, name: str, codes: np.ndarray, rows: _Rows) -> dict[str, np.ndarray]:
        """Count, mean, spread and share of liked ratings of the person or the film."""
        own = rows.rating if rows.own else 0.0
        liked = (own >= self.relevant_from) * 1.0 if rows.own else 0.0
        n = self._of(f"{name}_n", codes, rows.own)
        total, squares = self._of(f"{name}_sum", codes, own), self._of(f"{name}_squares", codes, own**2)
        overall, overall_liked = self._overall(rows)
        spread = np.sqrt(np.maximum(_mean(squares, n) - _mean(total, n) ** 2, 0))
        known = (n + self.shrinkage) > 0
        mean = _shrunk(total, n, overall, self.shrinkage)
        share = _shrunk(self._of(f"{name}_liked", codes, liked), n, overall_liked, self.shrinkage)
        return {
            f"{name}_count": np.log1p(n),
            f"{name}_mean": np.where(known, mean, np.nan),
            f"{name}_std": np.where(n > 1, spread, np.nan),
            f"{name}_liked": np.where(known, share, np.nan),
        }

    def _of_people(self, rows: _Rows) -> dict[str, np.ndarray]:
        """Statistics of the person, and what kind of films they are."""
        popularity = np.log1p(self._of("item_n", rows.item))
        year = np.where(rows.item >= 0, self.arrays["year"][rows.item], np.nan)
        own_year, own_dated = (np.nan_to_num(year), ~np.isnan(year)) if rows.own else (0.0, 0.0)
        n = self._of("user_n", rows.user, rows.own)
        years = _mean(self._of("user_years", rows.user, own_year), self._of("user_dated", rows.user, own_dated))
        return {
            **self._statistics("user", rows.user, rows),
            "user_popularity": _mean(self._of("user_popularity", rows.user, popularity * rows.own), n),
            "user_year_distance": np.abs(year - years),
        }

    def _of_films(self, rows: _Rows) -> dict[str, np.ndarray]:
        """Statistics of the film, and its age."""
        year = np.where(rows.item >= 0, self.arrays["year"][rows.item], np.nan)
        mean = _mean(self._of("user_sum", rows.user), self._of("user_n", rows.user)) if rows.own else 0.0
        raters = _mean(self._of("item_raters", rows.item, mean), self._of("item_n", rows.item, rows.own))
        columns = self._statistics("item", rows.item, rows) | {"item_raters": raters, "item_year": year}
        if rows.when is not None:
            columns["item_age"] = 1970 + rows.when / (365.25 * DAY) - year
        return columns

    def _of_genres(self, rows: _Rows) -> dict[str, np.ndarray]:
        """What the film's genres are, and what people in general and this person think of them."""
        names = self.arrays["genre_names"]
        row, genre = self._row_genres(rows.item)
        number = np.bincount(row, minlength=len(rows.item))
        user, own = rows.user[row], rows.rating[row] if rows.own else 0.0
        cell = np.where(user >= 0, user * len(names) + genre, -1)
        n, total = self._of("user_genre_n", cell, rows.own), self._of("user_genre_sum", cell, own)
        mean = self._statistics("user", rows.user, rows)["user_mean"]
        mean = np.where(np.isnan(mean), self._overall(rows)[0], mean)[row]
        overall = self._overall(rows)[0][row]
        of_genre = _shrunk(self.arrays["genre_sum"][genre] - own, self.arrays["genre_n"][genre] - rows.own, overall, 1)
        affinity = _shrunk(total - n * mean, n, 0.0, max(self.shrinkage, 1.0))
        share = _mean(n, self._of("user_n", user, rows.own))
        flags = np.zeros((len(names), len(rows.item)), dtype=np.float32)
        flags[genre, row] = 1
        return {
            "genre_number": number,
            "genre_mean": _mean(np.bincount(row, of_genre, minlength=len(number)), number),
            "genre_affinity": _mean(np.bincount(row, affinity, minlength=len(number)), number),
            "genre_share": _mean(np.bincount(row, share, minlength=len(number)), number),
            **{f"genre_{name}": flags[code] for code, name in enumerate(names)},
        }

    def _of_times(self, rows: _Rows) -> dict[str, Any]:
        """The moment, and what had happened up to then to the person and to the film."""
        if not self.timelines:
            return {}
        when, own = rows.when, rows.own
        days, seconds = np.divmod(when, DAY)
        weekday = (days + 3) % 7  # 1 January 1970 was a Thursday
        month = when.astype("datetime64[s]").astype("datetime64[M]").astype(np.int64) % 12
        user, item = self.timelines["user"], self.timelines["item"]
        before = np.maximum(item.until(rows.item, when) - own, 0)
        earlier = item.until(rows.item, when - self.recent_days * DAY)
        return {
            "hour": pd.Categorical.from_codes(seconds // 3600, categories=np.arange(24)),
            "weekday": pd.Categorical.from_codes(weekday, categories=np.arange(7)),
            "month": pd.Categorical.from_codes(month, categories=np.arange(1, 13)),
            "weekend": weekday >= 5,
            "user_place": np.log1p(user.until(rows.user, when) - own),
            "user_since_first": user.since_first(rows.user, when, own) / DAY,
            "user_since_last": user.since_last(rows.user, when, own) / DAY,
            "item_place": np.log1p(before),
            "item_since_first": item.since_first(rows.item, when, own) / DAY,
            "item_recent": np.log1p(np.maximum(before - earlier, 0)),
        }

    def _of_demographics(self, rows: _Rows) -> dict[str, Any]:
        """Columns of the people's table."""
        columns: dict[str, Any] = {}
        for feature in self.demographics:
            stored = self.arrays[feature.name]
            if feature.kind == "category":
                codes = np.where(rows.user >= 0, stored[rows.user], -1)
                columns[feature.name] = pd.Categorical.from_codes(codes, self.arrays[f"{feature.name}.words"])
            else:
                columns[feature.name] = np.where(rows.user >= 0, stored[rows.user], np.nan)
        return columns

    # ---- on disk -------------------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> Path:
        """Write ``config.json`` and ``arrays.npz``: all that :meth:`transform` needs, not the training rows."""
        arrays = {**self.arrays, "user_ids": self.user_ids, "item_ids": self.item_ids}
        for name, timeline in self.timelines.items():
            arrays |= timeline.arrays(f"timeline_{name}")
        config = {"format": FORMAT, "params": self.params(), "has_ratings": self.has_ratings}
        config["demographics"] = [asdict(feature) for feature in self.demographics]
        with replacing_folder(folder) as temporary:
            write_npz(temporary / "arrays.npz", **arrays)
            write_json(temporary / "config.json", config)
        return Path(folder)

    @classmethod
    def load(cls, folder: Path | str) -> Features:
        """Read what :meth:`save` wrote."""
        config = _read_config(folder)
        features = cls(**config["params"])
        features.arrays = read_npz(Path(folder) / "arrays.npz")
        features.user_ids, features.item_ids = features.arrays.pop("user_ids"), features.arrays.pop("item_ids")
        features.has_ratings, features.rows = config["has_ratings"], None
        features.demographics = [Feature(**feature) for feature in config["demographics"]]
        names = [name for name in ("user", "item") if f"timeline_{name}.keys" in features.arrays]
        features.timelines = {name: Timeline.from_arrays(features.arrays, f"timeline_{name}") for name in names}
        features.arrays = {name: array for name, array in features.arrays.items() if not name.startswith("timeline_")}
        return features

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.params().items())
        return f"Features({given})"


def _known_ids(ids: pd.Series, table: pd.DataFrame | None, column: str) -> np.ndarray:
    """Ids of the training rows and of the table, ascending."""
    known = np.unique(as_ids(ids))
    return known if table is None else np.unique(np.concatenate([known, as_ids(table[column])]))


def _read_config(folder: Path | str) -> dict[str, Any]:
    """Read a folder's ``config.json`` and check its format."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no saved features: config.json is missing")
    config = read_json(path)
    if config["format"] != FORMAT:
        raise ValueError(f"{path} has format {config['format']}; this version reads {FORMAT}")
    return config


def describe(table: pd.DataFrame, features: Iterable[Feature]) -> pd.DataFrame:
    """Say of each feature where it comes from and how it is distributed.

    Returns
    -------
    DataFrame
        feature, group, kind, source, meaning, missing (share), distinct; for numbers and flags low, median, high (5 %,
        50 %, 95 % of the rows) and mean; for categories the most frequent one and its share.
    """
    rows = []
    for feature in features:
        values = table[feature.name]
        row = {"feature": feature.name, "group": feature.group, "kind": feature.kind, "source": feature.source}
        row |= {"meaning": feature.meaning, "missing": values.isna().mean(), "distinct": values.nunique()}
        if feature.kind == "category":
            counts = values.value_counts()
            if len(counts) and counts.iloc[0]:
                row |= {"most_frequent": str(counts.index[0]), "its_share": counts.iloc[0] / len(values)}
        else:
            low, median, high = values.quantile([0.05, 0.5, 0.95]) if values.notna().any() else [np.nan] * 3
            row |= {"low": low, "median": median, "high": high, "mean": values.mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def drift(train: pd.DataFrame, later: pd.DataFrame) -> pd.DataFrame:
    """How far numbers and flags move from training rows to later ones.

    Returns
    -------
    DataFrame
        feature, train (mean), later (mean), shift: their difference in standard deviations of the training rows.
        Largest shift first.

    Examples
    --------
    >>> drift(pd.DataFrame({"age": [1.0, 3.0]}), pd.DataFrame({"age": [4.0]}))
      feature  train  later  shift
    0     age    2.0    4.0    2.0
    """
    columns = train.select_dtypes("number").columns
    before, after, spread = train[columns].mean(), later[columns].mean(), train[columns].std(ddof=0)
    shift = ((after - before) / spread.where(spread > 0)).fillna(0)
    table = pd.DataFrame({"train": before, "later": after, "shift": shift}).rename_axis("feature")
    return table.sort_values("shift", key=np.abs, ascending=False, kind="stable").reset_index()


def outputs(
    split: Split, *, items: pd.DataFrame | None = None, users: pd.DataFrame | None = None, **params: Any
) -> dict[str, Any]:
    """Everything that is fitted for the features of a split, for :func:`recsys_lib.data.leaks.check_pipeline`.

    Returns
    -------
    dict
        "train" and "test": their features; "encoder.mean", "encoder.spread" and the vocabularies; "statistics.*".
    """
    fitted = Features(**params).fit(split.train, items=items, users=users)
    train = fitted.leave_one_out()
    encoder = Encoder().fit(train, fitted.features)
    made = {"train": train, "test": fitted.transform(split.test)}
    made |= {"encoder.mean": encoder.mean, "encoder.spread": encoder.spread}
    made |= {f"encoder.{name}": words for name, words in encoder.words.items()}
    return made | {f"statistics.{name}": values for name, values in fitted.arrays.items()}


class Encoder:
    """Turns a table of features into arrays: numbers standardised, categories as codes.

    Means, spreads and vocabularies come from the rows it is fitted on, which are to be training rows. A missing number
    becomes the mean (0), a missing or unknown category the code 0.

    Examples
    --------
    >>> kinds = [Feature("age", "demographic", "number", "", ""), Feature("job", "demographic", "category", "", "")]
    >>> table = pd.DataFrame({"age": [20.0, 40.0], "job": pd.Categorical(["a", "b"])})
    >>> encoder = Encoder().fit(table, kinds)
    >>> numbers, categories = encoder.transform(pd.DataFrame({"age": [50.0], "job": pd.Categorical(["c"])}))
    >>> numbers.tolist(), categories.tolist()
    ([[2.0]], [[0]])
    """

    def fit(self, table: pd.DataFrame, features: Iterable[Feature]) -> Self:
        """Take means, spreads and vocabularies from the training rows' features."""
        features = list(features)
        self.numbers = np.array([feature.name for feature in features if feature.kind != "category"], dtype=str)
        kinds = [feature.kind == "number" for feature in features if feature.kind != "category"]
        self.scaled = np.array(kinds, dtype=bool)
        values = table[list(self.numbers)].to_numpy(np.float64)
        seen = ~np.isnan(values)
        n = np.maximum(seen.sum(axis=0), 1)
        mean = np.where(seen, values, 0).sum(axis=0) / n
        spread = np.sqrt(np.where(seen, (values - mean) ** 2, 0).sum(axis=0) / n)
        self.mean = np.where(self.scaled, mean, 0.0)
        self.spread = np.where(self.scaled & (spread > 0), spread, 1.0)
        self.words = {
            feature.name: np.sort(as_ids(table[feature.name].dropna().unique().tolist() or [""]).astype(str))
            for feature in features
            if feature.kind == "category"
        }
        return self

    def transform(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Numbers and flags (n, d) float32, categories (n, c) int64; column order as in ``numbers`` and ``words``."""
        values = (table[list(self.numbers)].to_numpy(np.float64) - self.mean) / self.spread
        codes = [self._codes(table[name], words) for name, words in self.words.items()]
        categories = np.stack(codes, axis=1) if codes else np.empty((len(table), 0), dtype=np.int64)
        return np.nan_to_num(values).astype(np.float32), categories

    @staticmethod
    def _codes(values: pd.Series, words: np.ndarray) -> np.ndarray:
        """Place of each value in the vocabulary, from 1; 0 where it is not there."""
        values = values.astype("category")
        of_category = codes_of(np.asarray(values.cat.categories).astype(str), words) + 1
        codes = values.cat.codes.to_numpy()
        return np.where(codes >= 0, of_category[codes] if len(of_category) else 0, 0).astype(np.int64)

    @property
    def sizes(self) -> list[int]:
        """Number of codes of each category, the unknown one included: rows that an embedding needs."""
        return [len(words) + 1 for words in self.words.values()]

    def save(self, folder: Path | str) -> Path:
        """Write ``config.json`` and ``arrays.npz``."""
        arrays = {"numbers": self.numbers, "scaled": self.scaled, "mean": self.mean, "spread": self.spread}
        arrays |= {f"words.{name}": words for name, words in self.words.items()}
        with replacing_folder(folder) as temporary:
            write_npz(temporary / "arrays.npz", **arrays)
            write_json(temporary / "config.json", {"format": FORMAT, "categories": list(self.words)})
        return Path(folder)

    @classmethod
    def load(cls, folder: Path | str) -> Encoder:
        """Read what :meth:`save` wrote."""
        categories = _read_config(folder)["categories"]
        arrays = read_npz(Path(folder) / "arrays.npz")
        encoder = cls()
        encoder.words = {name: arrays[f"words.{name}"] for name in categories}
        for name in ("numbers", "scaled", "mean", "spread"):
            setattr(encoder, name, arrays[name])
        return encoder
