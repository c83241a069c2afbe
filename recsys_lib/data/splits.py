"""Division of interactions into train, validation and test.

Every way of splitting is a function of the interactions table alone and gives the same parts on every machine. The rows
of each part keep the order that they have in the table. ``QUESTIONS`` says what each way asks. ValueError says where a
table lacks what a way needs (an id, timestamps), or nothing is left to train on.

Equal timestamps are common (three of four ratings of ml-100k share a user and a second). Where a rule needs an order
that time does not give, it is the order of a 64-bit hash of (user_id, item_id): independent of the order of the rows,
and without relation to popularity (the low item ids of ml-100k are popular films). Data with an order and no times (a
column ``position``) is ordered by position; :func:`leave_one_out` takes the order of the rows where there is neither.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from recsys_lib.data.interactions import check_frame, order_column, places_in_rows

TRAIN, VALID, TEST, LATER, UNUSED = range(5)
CANONICAL_ROWS = 100_000  # of ml-100k's u.data
ASKED = 5000  # users that models are chosen on, at most
ROUNDING = 1e-9  # 0.29 * 100 is 28.999999999999996 in floating point; it means 29


@dataclass(frozen=True)
class Split:
    """Three tables that share no pair of user and item, but for what :func:`leave_one_out` says of repeats."""

    train: pd.DataFrame  # user_id, item_id, rating and, where known, timestamp
    valid: pd.DataFrame
    test: pd.DataFrame
    name: str  # of the way of splitting, such as "temporal_user"
    params: dict[str, Any] = field(default_factory=dict)  # its arguments
    dropped: dict[str, int] = field(default_factory=dict)  # rows in no part: {"test rows of users without ...": 3}

    @property
    def history(self) -> pd.DataFrame:
        """Everything before the test: train and validation together."""
        rows = pd.concat([self.train, self.valid], ignore_index=True)
        repeats = self.params.get("repeats")
        return rows if repeats is None else _without_repeats(rows, repeats).reset_index(drop=True)

    def for_validation(self) -> Split:
        """The same users one step earlier: train as history, validation as test. The test part is not in it."""
        return Split(self.train, self.valid.iloc[:0], self.valid, name=self.name, params={**self.params, "on": "valid"})

    def describe(self) -> pd.DataFrame:
        """Describe what each part holds, and how much of it is unknown to what a model was fitted on before.

        One row a part: part, rows, share (of all rows), users, items, first and last (UTC; absent without timestamps),
        and, against everything before the part: new_users and new_items (how many of its own are unknown), gone_users
        and gone_items (how many known ones do not come back), cold_user_rows, cold_item_rows and cold_rows (share of
        its rows whose user, item or either is unknown; NaN for train, which has nothing before it).

        >>> frame = pd.DataFrame({"user_id": 1, "item_id": range(10), "timestamp": range(10)})
        >>> temporal_user(frame).describe()[["part", "rows", "new_items", "cold_rows"]]
            part  rows  new_items  cold_rows
        0  train     7          0        NaN
        1  valid     1          1        1.0
        2   test     2          2        1.0
        """
        befores = {"train": None, "valid": self.train, "test": self.history}
        total = max(1, len(self.train) + len(self.valid) + len(self.test))
        rows = []
        for name, before in befores.items():
            part = getattr(self, name)
            facts: dict[str, Any] = {"part": name, "rows": len(part), "share": len(part) / total}
            facts |= {"users": part["user_id"].nunique(), "items": part["item_id"].nunique()}
            if "timestamp" in part:
                ends = pd.to_datetime(part["timestamp"].agg(["min", "max"]), unit="s")
                facts |= {"first": ends["min"], "last": ends["max"]}
            cold = np.zeros(len(part), dtype=bool)
            judged = before is not None and len(part) > 0
            for kind in ("user", "item"):
                ids = part[f"{kind}_id"]
                known = ids.iloc[:0] if before is None else before[f"{kind}_id"].drop_duplicates()
                new = ~ids.isin(known).to_numpy() & (before is not None)
                facts |= {f"new_{kind}s": ids[new].nunique(), f"gone_{kind}s": int((~known.isin(ids)).sum())}
                facts[f"cold_{kind}_rows"] = new.mean() if judged else np.nan
                cold |= new
            rows.append(facts | {"cold_rows": cold.mean() if judged else np.nan})
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value}" for name, value in self.params.items())
        sizes = f"train {len(self.train):,}, valid {len(self.valid):,}, test {len(self.test):,}"
        return f"Split({self.name}({given}): {sizes})"


# ---- shared pieces -----------------------------------------------------------------------------------------------


def pair_hash(frame: pd.DataFrame) -> np.ndarray:
    """A number for each row that depends on its pair (user, item) alone, (n,) uint64."""
    return pd.util.hash_pandas_object(frame[["user_id", "item_id"]], index=False).to_numpy()


def _by_chance(frame: pd.DataFrame, seed: int) -> np.ndarray:
    """A number for each row that depends on its pair and the seed, (n,) uint64.

    The finaliser of SplitMix64 (Steele, Lea and Flood, 2014) mixes the hash of the pair.
    """
    mixed = pair_hash(frame) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _order(frame: pd.DataFrame, groups: np.ndarray) -> np.ndarray:
    """Row numbers by (group, timestamp or position, hash of the pair), (n,) int64.

    Group and time are packed into one integer, which sorts several times faster than three columns; only the
    rows whose integer is not unique are hashed.
    """
    when = frame[order_column(frame)].to_numpy(np.int64)
    if len(frame) == 0:
        return np.empty(0, dtype=np.int64)
    since = when - when.min()
    span = int(since.max()) + 1
    if (int(groups.max()) + 1) * span >= 2**63:
        return np.lexsort((pair_hash(frame), when, groups))
    key = groups.astype(np.int64) * span + since
    order = np.argsort(key)
    ordered = key[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.concatenate([same, [False]]) | np.concatenate([[False], same]))
    rows = order[tied]
    order[tied] = rows[np.lexsort((pair_hash(frame.iloc[rows]), ordered[tied]))]
    return order


def from_codes(interactions: pd.DataFrame, part: np.ndarray, name: str, params: dict[str, Any]) -> Split:
    """Make the split from a code for each row; rows with any other code are left out."""
    parts = [interactions[part == code].reset_index(drop=True) for code in (TRAIN, VALID, TEST)]
    if len(parts[TRAIN]) == 0:
        given = ", ".join(f"{key}={value}" for key, value in params.items())
        raise ValueError(f"{name}({given}) leaves nothing to train on: there are {len(interactions):,} interactions")
    return Split(*parts, name=name, params=params)


def _need(interactions: pd.DataFrame, name: str, *columns: str) -> None:
    """Refuse a table that has none of the columns that give it an order."""
    if not any(column in interactions for column in columns):
        others = "temporal_user or leave_one_out" if "position" in interactions else "random or leave_one_out"
        raise ValueError(f"{name} needs timestamps, and the interactions have none; use {others}")


def check_shares(test: float, valid: float) -> None:
    """Refuse shares that leave nothing to train on, with a ValueError."""
    if not (0 < test < 1 and 0 <= valid < 1 and test + valid < 1):
        raise ValueError(f"test={test} and valid={valid} must be shares that leave something to train on")


def _left(users: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row: how many of its user's are left from it on (1 for the last), and how many there are in all."""
    counts = np.bincount(users)
    return counts[users] - places_in_rows(users, order, len(counts)), counts[users]


def _part_of(size: np.ndarray | int, share: float) -> np.ndarray | int:
    """Whole rows of a share, rounded down: floor(share * size)."""
    return np.floor(share * np.asarray(size) + ROUNDING).astype(np.int64)


# ---- ways of splitting -------------------------------------------------------------------------------------------


def temporal_user(interactions: pd.DataFrame, *, test: float = 0.2, valid: float = 0.1) -> Split:
    """Cut each user's own history in time: the last part is test, the part before it validation.

    A user with n interactions gives floor(test * n) to the test and floor(valid * n) to the validation. Equal
    timestamps (or positions) of a user are put in the order of a hash of (user_id, item_id).

    Other users' future is in everybody's training part by construction, which flatters models that learn from
    co-occurrence; :func:`temporal_global` has none of it.

    >>> frame = pd.DataFrame({"user_id": 1, "item_id": range(10), "rating": 3.0, "timestamp": range(10)})
    >>> split = temporal_user(frame)
    >>> split.test["item_id"].tolist(), split.valid["item_id"].tolist()
    ([8, 9], [7])
    """
    check_frame(interactions)
    _need(interactions, "temporal_user", "timestamp", "position")
    check_shares(test, valid)
    users, _ = pd.factorize(interactions["user_id"])
    left, size = _left(users, _order(interactions, users))
    n_test = _part_of(size, test)
    part = np.where(left <= n_test, TEST, np.where(left <= n_test + _part_of(size, valid), VALID, TRAIN))
    return from_codes(interactions, part, "temporal_user", {"test": test, "valid": valid})


def temporal_global(interactions: pd.DataFrame, *, test: float = 0.2, valid: float = 0.1) -> Split:
    """Cut all interactions at one moment: what comes after it is test, a slice before it validation.

    Rows of the same second are never divided: a cut stands just before the second in which the row at place
    floor((1 - test) * n) falls, so the test holds at least its share, and time in train < valid < test strictly.

    >>> frame = pd.DataFrame({"user_id": range(10), "item_id": 1, "timestamp": [0, 1, 2, 3, 4, 5, 6, 7, 7, 7]})
    >>> split = temporal_global(frame)
    >>> split.valid["user_id"].tolist(), split.test["user_id"].tolist()
    ([], [7, 8, 9])
    """
    check_frame(interactions)
    _need(interactions, "temporal_global", "timestamp")
    check_shares(test, valid)
    when = interactions["timestamp"].to_numpy(np.int64)
    places = [len(when) - _part_of(len(when), test), len(when) - _part_of(len(when), test + valid)]
    places = np.minimum(places, len(when) - 1)
    test_from, valid_from = np.partition(when, places)[places] if len(when) else (0, 0)
    part = np.where(when >= test_from, TEST, np.where(when >= valid_from, VALID, TRAIN))
    return from_codes(interactions, part, "temporal_global", {"test": test, "valid": valid})


def random(interactions: pd.DataFrame, *, test: float = 0.2, valid: float = 0.1, seed: int = 0) -> Split:
    """Deal the rows out by chance, whoever they belong to and whenever they were.

    The papers' usual split; it looks into the future, and so flatters every model. Exactly floor(test * n) rows are
    test and floor(valid * n) validation: those with the lowest values of a hash of (user_id, item_id, seed), so that
    the order of the rows does not matter.

    >>> frame = pd.DataFrame({"user_id": 1, "item_id": range(10)})
    >>> split = random(frame, seed=1)
    >>> len(split.train), len(split.valid), len(split.test)
    (7, 1, 2)
    """
    check_frame(interactions)
    check_shares(test, valid)
    n_test, n_valid = (_part_of(len(interactions), share) for share in (test, valid))
    order = np.argsort(_by_chance(interactions, seed), kind="stable")
    part = np.full(len(interactions), TRAIN, np.int8)
    part[order[:n_test]], part[order[n_test : n_test + n_valid]] = TEST, VALID
    return from_codes(interactions, part, "random", {"test": test, "valid": valid, "seed": seed})


def leave_one_out(interactions: pd.DataFrame, *, repeats: str = "last") -> Split:
    """Hold out each user's last interaction as test and the one before it as validation.

    Common in papers on sequences; one item a user makes noisy means. A user with two interactions gives none to the
    validation, one with a single interaction none to the test. The order is that of :func:`temporal_user`; without
    timestamps and positions it is that of the rows.

    Of an item that a user had more than once train and history keep the "last" row, the "first", or the last with the
    sum of the ratings (1 each without such): "count". What is held out stays, also where it repeats an item of the
    history: such a row cannot be hit while lists leave out what was seen, and a task counts them.

    >>> frame = pd.DataFrame({"user_id": [1, 1, 1, 2], "item_id": [5, 6, 7, 5], "timestamp": [30, 10, 20, 10]})
    >>> split = leave_one_out(frame)
    >>> split.test["item_id"].tolist(), split.valid["item_id"].tolist(), len(split.train)
    ([5], [7], 2)
    >>> again = leave_one_out(pd.DataFrame({"user_id": 1, "item_id": [5, 6, 5, 7, 5]}))
    >>> again.train["item_id"].tolist(), again.valid["item_id"].tolist(), again.test["item_id"].tolist()
    ([6, 5], [7], [5])
    """
    check_frame(interactions)
    if repeats not in ("last", "first", "count"):
        raise ValueError(f"repeats is {repeats!r}; it must be 'last', 'first' or 'count'")
    users, _ = pd.factorize(interactions["user_id"])
    ordered = order_column(interactions) is not None
    order = _order(interactions, users) if ordered else np.argsort(users, kind="stable")
    left, size = _left(users, order)
    part = np.where((left == 1) & (size >= 2), TEST, np.where((left == 2) & (size >= 3), VALID, TRAIN))
    if not interactions.duplicated(["user_id", "item_id"]).any():
        return from_codes(interactions, part, "leave_one_out", {})
    if repeats == "count" and "rating" not in interactions:
        interactions = interactions.assign(rating=np.float32(1))
    train = order[part[order] == TRAIN]
    kept = _without_repeats(interactions.iloc[train].set_axis(train), repeats).sort_index().reset_index(drop=True)
    return replace(from_codes(interactions, part, "leave_one_out", {"repeats": repeats}), train=kept)


def _without_repeats(rows: pd.DataFrame, repeats: str) -> pd.DataFrame:
    """Keep one row of each pair of user and item; a user's rows must stand in their order."""
    pair = ["user_id", "item_id"]
    if repeats == "count":
        rows = rows.assign(rating=rows.groupby(pair)["rating"].transform("sum"))
    return rows.drop_duplicates(pair, keep="first" if repeats == "first" else "last")


def canonical_fold(interactions: pd.DataFrame, k: int = 1, *, valid: float = 0.1, seed: int = 0) -> Split:
    """The published fold u1..u5 of ml-100k: rows 20000(k-1)..20000k of u.data, in file order, are the test.

    GroupLens publishes no validation part: floor(valid * 100000) of the other rows, those with the lowest values
    of a hash of (user_id, item_id, seed), are validation; ``history`` is the published u<k>.base.

    The table must be in the order of u.data: another order would not be noticed, only another number of rows.
    """
    check_frame(interactions)
    if k not in (1, 2, 3, 4, 5):
        raise ValueError(f"k is {k!r}; the published folds are u1 to u5, so k must be 1, 2, 3, 4 or 5")
    if len(interactions) != CANONICAL_ROWS:
        raise ValueError(
            f"canonical_fold is ml-100k's own: it needs the 100,000 rows of u.data in file order, "
            f"and these interactions have {len(interactions):,}"
        )
    if not 0 <= valid < 0.8:
        raise ValueError(f"valid={valid} must be a share below 0.8, because the test part takes 0.2")
    size = CANONICAL_ROWS // 5
    part = np.full(CANONICAL_ROWS, TRAIN, np.int8)
    part[size * (k - 1) : size * k] = TEST
    rest = np.flatnonzero(part == TRAIN)
    chosen = np.argsort(_by_chance(interactions.iloc[rest], seed), kind="stable")
    part[rest[chosen[: _part_of(CANONICAL_ROWS, valid)]]] = VALID
    return from_codes(interactions, part, "canonical_fold", {"k": k, "valid": valid, "seed": seed})


def rolling(
    interactions: pd.DataFrame,
    *,
    cuts: tuple[float, ...] = (0.70, 0.75, 0.80, 0.85, 0.90, 0.95),
    span: float = 0.05,
    min_history: int = 1,
) -> Iterator[Split]:
    """Cut all interactions at several moments; after each, the next slice of time is test. One split a cut.

    One cut alone scores few users. ``cuts`` are shares of the interactions, in the order of time. Every split's train
    part ends ``span`` (a share, too) before its cut, its validation part is the slice before the cut, its test part the
    slice after; rows of the same second are never divided. Test rows of users with fewer than ``min_history``
    interactions before the cut are left out; validation keeps everybody, so that ``history`` is all that is known.

    >>> frame = pd.DataFrame({"user_id": [1, 2] * 10, "item_id": range(20), "timestamp": range(20)})
    >>> [(split.params["cut"], split.test["item_id"].tolist()) for split in rolling(frame, cuts=(0.5, 0.9), span=0.1)]
    [(0.5, [10, 11]), (0.9, [18, 19])]
    """
    check_frame(interactions)
    _need(interactions, "rolling", "timestamp")
    if not 0 < span < 1 or not all(span < cut <= 1 - span + ROUNDING for cut in cuts):
        raise ValueError(f"cuts={cuts} must lie between span={span} and 1 - span, so that each has a slice either side")
    when = interactions["timestamp"].to_numpy(np.int64)
    users, _ = pd.factorize(interactions["user_id"])
    ordered = np.sort(when)
    for cut in cuts:
        places = _part_of(len(when), np.array([cut - span, cut, cut + span]))
        starts = [ordered[place] if place < len(when) else ordered[-1] + 1 for place in places]
        part = np.searchsorted(starts, when, side="right").astype(np.int8)
        before = np.bincount(users[part < TEST], minlength=users.max(initial=-1) + 1)
        part[(part == TEST) & (before[users] < min_history)] = UNUSED
        dropped = {"test rows of users without enough history": int((part == UNUSED).sum())}
        dropped["rows after the slice"] = int((part == LATER).sum())
        params = {"cut": cut, "span": span, "min_history": min_history}
        yield replace(from_codes(interactions, part, "rolling", params), dropped=dropped)


def future_share(split: Split) -> float:
    """Share of the history that is later than a test row, on average over the test rows; NaN without timestamps.

    What a model could not have known when the test row happened: 0 for a cut in time, near a half for a random split.

    >>> frame = pd.DataFrame({"user_id": [1, 2, 1], "item_id": [5, 5, 6], "timestamp": [0, 9, 4]})
    >>> future_share(Split(frame[:2], frame[:0], frame[2:], "made"))
    0.5
    """
    if "timestamp" not in split.test or len(split.test) == 0:
        return float("nan")
    known = np.sort(split.history["timestamp"].to_numpy())
    return float(1 - np.searchsorted(known, split.test["timestamp"].to_numpy(), side="right").mean() / len(known))


def without_future(split: Split, groups: int = 8) -> Iterator[Split]:
    """Divide the users of a split by when their test begins, and leave out what others did after that.

    Each split that comes back tests one group of users. Its train part holds the history of everybody before the first
    test of the group, and all of the history of the group's own users. A model fitted on it knows (but for the
    group itself) nothing that happened later, so the difference to ``split`` is what other users' future was worth.

    The split must have each user's test after the own history: ``temporal_user`` or ``leave_one_out``. More groups
    leave less future, and take as many fits.

    >>> frame = pd.DataFrame({"user_id": [1] * 5 + [2] * 5, "item_id": [*range(5)] * 2, "timestamp": range(10)})
    >>> [len(part.train) for part in without_future(temporal_user(frame), groups=2)]
    [4, 8]
    """
    _need(split.test, "without_future", "timestamp")
    history = split.history
    begins = split.test.groupby("user_id")["timestamp"].min().sort_values(kind="stable")
    for users in np.array_split(begins.index.to_numpy(), groups):
        if len(users) == 0:
            continue
        own = history["user_id"].isin(users)
        train = history[own | (history["timestamp"] < begins[users].min())].reset_index(drop=True)
        test = split.test[split.test["user_id"].isin(users)].reset_index(drop=True)
        yield Split(train, train.iloc[:0], test, name=split.name, params={**split.params, "without_future": True})


def held_out_split(split: Split) -> Split:
    """Divide the history once more, in the way the whole was divided: its test part is what models are chosen on.

    The validation part is half as long as the test part, and what is best for the next few items is not best for the
    next many: short-sighted models win there. The new test part is as large a share as the old one, taken from train
    and validation together; nothing of the old one is in it. Splits whose shares cannot be taken again
    (``leave_one_out``, ``canonical_fold``) are judged on their own validation part.
    """
    again = {way.__name__: way for way in (temporal_user, temporal_global, random, return_visit)}.get(split.name)
    share = split.params.get("test")
    if again is None or share is None or not len(split.valid):
        return split.for_validation()
    more = {name: split.params[name] for name in ("seed", "gap") if name in split.params}
    made = again(split.history, test=share / (1 - share), valid=0.0, **more)
    return replace(made, params={**made.params, "on": "validation"})


def asking_some(split: Split) -> Split:
    """The same split with the test rows of at most ``ASKED`` users, drawn by chance: enough to choose a model by."""
    users = split.test["user_id"].drop_duplicates()
    some = split.test["user_id"].isin(users.sample(min(ASKED, len(users)), random_state=0))
    return split if some.all() else replace(split, test=split.test[some].reset_index(drop=True))


# ---- sittings ----------------------------------------------------------------------------------------------------


def same_sitting(history: pd.DataFrame, later: pd.DataFrame, gap: str = "1h") -> np.ndarray:
    """Which later rows belong to the sitting in which their user's history ends, (len(later),) bool.

    A sitting is a run of a user's interactions without a pause longer than ``gap``, such as "1h" or "7D". Rows of users
    without a history belong to no such sitting. No row of ``later`` may come before the last of its user's history.

    >>> history = pd.DataFrame({"user_id": [1], "timestamp": [0]})
    >>> same_sitting(history, pd.DataFrame({"user_id": 1, "timestamp": [3600, 7200, 10801]})).tolist()
    [True, True, False]
    """
    _need(later, "return_visit", "timestamp")
    ends = history.groupby("user_id")["timestamp"].max()
    rows = later[["user_id", "timestamp"]].reset_index(drop=True).sort_values(["user_id", "timestamp"], kind="stable")
    before = rows.groupby("user_id")["timestamp"].shift().fillna(rows["user_id"].map(ends))
    new = ~((rows["timestamp"] - before) <= pd.Timedelta(gap).total_seconds())  # True where there is no row before
    return ~new.groupby(rows["user_id"]).cummax().sort_index().to_numpy(bool)


def return_visit(interactions: pd.DataFrame, *, gap: str = "1h", test: float = 0.2, valid: float = 0.1) -> Split:
    """Cut each user's history between two sittings: test is what the user watched on later visits.

    The cuts are those of :func:`temporal_user`, each moved to the end of the sitting that it falls into: rows of the
    test part in the sitting of the last row of the history become history, and so between train and validation. Users
    who never come back have no test rows. Most users of MovieLens enter all their ratings in one sitting (Fan, Ji,
    Zhang, Sun, "Our Model Achieves Excellent Performance on MovieLens: What Does it Mean?", ACM TOIS 42(6), 2024).

    >>> when = [0, 1, 2, 3, 4, 5, 6, 7, 8, 90_000]
    >>> split = return_visit(pd.DataFrame({"user_id": 1, "item_id": range(10), "timestamp": when}))
    >>> split.test["item_id"].tolist(), len(split.history)
    ([9], 9)
    """
    _need(interactions, "return_visit", "timestamp")
    cut = temporal_user(interactions.assign(_row=np.arange(len(interactions))), test=test, valid=valid)
    part = np.full(len(interactions), TRAIN, np.int8)
    part[cut.valid["_row"]], part[cut.test["_row"]] = VALID, TEST
    for known in (TRAIN, VALID):
        later = np.flatnonzero(part > known)
        part[later[same_sitting(interactions[part <= known], interactions.iloc[later], gap)]] = known
    return from_codes(interactions, part, "return_visit", {"gap": gap, "test": test, "valid": valid})


# ---- filter ------------------------------------------------------------------------------------------------------


def k_core(interactions: pd.DataFrame, *, min_user: int = 1, min_item: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep users with at least ``min_user`` and items with at least ``min_item`` interactions, all at once.

    Dropping items can leave a user with too few, and the reverse: both are repeated until nothing changes,
    which gives the largest such part of the table whatever the order (Seidman, "Network structure and minimum degree",
    1983). It looks at all rows, test included, so it changes what is asked; it never looks at a rating.

    Gives the rows that stay, in their order, and a table of the rounds (0 is the table as given): rows, users, items,
    and those dropped.

    >>> frame = pd.DataFrame({"user_id": [1, 1, 2, 2, 3], "item_id": [5, 6, 5, 6, 7]})
    >>> kept, steps = k_core(frame, min_user=2, min_item=2)
    >>> kept["user_id"].tolist(), steps["rows"].tolist()
    ([1, 1, 2, 2], [5, 4])
    """
    if min_user < 1 or min_item < 1:
        raise ValueError(f"min_user={min_user} and min_item={min_item} must be at least 1, which keeps everything")
    codes = [pd.factorize(interactions[column])[0] for column in ("user_id", "item_id")]
    alive, steps = np.ones(len(interactions), dtype=bool), []
    while True:
        counts = [np.bincount(code[alive], minlength=code.max(initial=-1) + 1) for code in codes]
        steps.append([int(alive.sum()), *(int(np.count_nonzero(count)) for count in counts)])
        user, item = (count[code] for count, code in zip(counts, codes, strict=True))
        leaves = alive & ((user < min_user) | (item < min_item))
        if not leaves.any():
            break
        alive &= ~leaves
    table = pd.DataFrame(steps, columns=["rows", "users", "items"]).rename_axis("round").reset_index()
    dropped = -table[["rows", "users", "items"]].diff().fillna(0).astype(np.int64)
    return interactions[alive].reset_index(drop=True), table.join(dropped.add_prefix("dropped_"))


WAYS = {
    way.__name__: way for way in (temporal_user, return_visit, temporal_global, random, leave_one_out, canonical_fold)
}

QUESTIONS = {
    "temporal_user": "What will a known user watch next?",
    "return_visit": "What to show a user who comes back?",
    "temporal_global": "The service is running: what is the model worth from tomorrow on, new users included?",
    "random": "Which of the ratings that exist were held out?",
    "leave_one_out": "What is the very next item?",
    "canonical_fold": "How does a model compare with the literature on rating prediction?",
    "rolling": "What would the model have been worth at several moments of the service's life?",
}


def by_name(
    interactions: pd.DataFrame,
    name: str,
    *,
    test: float = 0.2,
    valid: float = 0.1,
    seed: int = 0,
    k: int = 1,
    gap: str = "1h",
) -> Split:
    """Split by the name of a way, with those of the arguments that the way has.

    Of positions that repeat an item of a user, ways without an argument for repeats keep the last.

    >>> by_name(pd.DataFrame({"user_id": 1, "item_id": range(10)}), "random", seed=3).name
    'random'
    """
    if name not in WAYS:
        raise ValueError(f"there is no split {name!r}; the splits are {', '.join(WAYS)}")
    given = {"test": test, "valid": valid, "seed": seed, "k": k, "gap": gap}
    takes = inspect.signature(WAYS[name]).parameters
    if "repeats" not in takes and "position" in interactions:
        interactions = interactions.drop_duplicates(["user_id", "item_id"], keep="last", ignore_index=True)
    return WAYS[name](interactions, **{argument: value for argument, value in given.items() if argument in takes})
