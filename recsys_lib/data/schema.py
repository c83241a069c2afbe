"""Check tables by pandera: all problems at once, in one sentence each; leave out what may be left out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import pandera.pandas as pa

from recsys_lib.data.cells import agree_on_ids
from recsys_lib.data.interactions import order_column
from recsys_lib.data.readers import MOST_COLUMNS, WEIGHT, RawTables, names_of

Scale = tuple[float, float]
LATEST = 4_102_444_800  # 2100-01-01, UNIX seconds
_SHOWN = 3
_LARGEST = float(np.finfo(np.float32).max)
_log = logging.getLogger(__name__)
_UNITS = {"milliseconds": ("ms", 1e3), "microseconds": ("us", 1e6), "nanoseconds": ("ns", 1e9)}
_TYPES = {"rating": np.float32, "timestamp": np.int64, "position": np.int64, "year": "Int16"}
_IDS = ("user_id", "item_id")


class BadTableError(ValueError):
    """Tables that do not hold what they should; ``problems`` has one sentence each, and ``advice`` may follow them."""

    def __init__(self, problems: Sequence[str], advice: str = "") -> None:
        self.problems = list(problems)
        super().__init__("\n".join([*self.problems, *filter(None, [advice])]))


@dataclass(frozen=True)
class Rule:
    """A rule for every value of a column, which must be there."""

    column: str
    name: str
    good: Callable[[pd.Series], pd.Series | np.ndarray | bool]  # from the column to a boolean for each row
    wrong: str | Callable[[pd.Series], str]  # what is said of the rows where it is false, or how to say it from them
    right: str


@dataclass(frozen=True)
class Outcome:
    """Result of a check: sentences, the rows that break a rule (n_rows,) bool, and columns that are not there."""

    problems: list[str]
    bad: np.ndarray
    lacking: list[str]


def is_number(values: pd.Series) -> pd.Series | bool:
    """Whether each value is a number, or missing; True where all must be."""
    if values.dtype.kind in "iuf":
        return True
    return pd.to_numeric(values, errors="coerce").notna() | values.isna()


def _within(low: float, high: float, beyond: float = np.inf) -> Callable[[pd.Series], pd.Series | bool]:
    """Whether each is from ``low`` to ``high``, missing, or further than ``beyond`` from 0; True where all are."""

    def good(s: pd.Series) -> pd.Series | bool:
        values = s.to_numpy() if isinstance(s.dtype, np.dtype) and len(s) else s  # without a mask of what is missing
        if values.min() >= low and values.max() <= high:
            return True
        return s.between(low, high) | s.isna() | (s.abs() > beyond)

    return good


def type_rules(columns: Sequence[str], *, whole_ids: bool = False) -> list[Rule]:
    """Rules that come first: what must be numbers is."""
    rules = []
    for column in columns:
        if column in _TYPES:
            date = " or a date such as 2003-05-13" * (column == "timestamp")
            wrong = f"a {column} that is not a number{' or a date' if date else ''}"
            rules.append(Rule(column, "number", is_number, wrong, f"a {column} is a number{date}"))
        elif whole_ids and column in _IDS:
            whole = lambda s: (  # noqa: E731
                s.dtype.kind in "iu" or is_number(s) & ~pd.to_numeric(s, errors="coerce").mod(1).gt(0)
            )
            right = "in this format ids are whole numbers"
            rules.append(Rule(column, "whole", whole, f"a {column} that is not a whole number", right))
    return rules


def _there(column: str) -> Rule:
    there = lambda s: s.notna() if s.dtype.kind in "iuf" else s.notna() & s.ne("")  # noqa: E731
    return Rule(column, "there", there, "no value", f"every row needs its {column}")


def _id_rules(column: str) -> list[Rule]:
    exact = lambda s: s.dtype.kind != "f" or ~(s.astype(float).abs() > 2**53)  # noqa: E731
    right = "a column of floats keeps no larger ones apart: write ids as integers or text"
    one = lambda s: not isinstance(s.dtype, pd.StringDtype) or ~s.str.contains("\n", regex=False, na=False)  # noqa: E731
    return [
        _there(column),
        Rule(column, "exact", exact, "an id beyond 2**53", right),
        Rule(column, "line", one, "an id with a line break", "an id is on one line: is a quote before it not closed?"),
    ]


def _unique(column: str) -> Rule:
    return Rule(column, "unique", lambda s: ~s.duplicated(), f"the {column} of an earlier row", "one row each is right")


def interaction_rules(columns: Sequence[str], scale: Scale | None, *, weights: bool = False) -> list[Rule]:
    """Rules of the interactions, of columns that are numbers already.

    ``scale`` is the lowest and highest rating, None where any number is right; ``weights`` of implicit feedback are
    positive.
    """
    rules = [*_id_rules("user_id"), *_id_rules("item_id")]
    if "rating" in columns:
        finite = _within(-_LARGEST, _LARGEST)
        rules += [_there("rating"), Rule("rating", "finite", finite, "an infinite rating", "ratings are finite")]
        if scale is not None:
            right = f"ratings here go from {scale[0]:g} to {scale[1]:g}"
            rules.append(Rule("rating", "scale", _within(*scale, _LARGEST), "a rating off the scale", right))
        if weights:
            positive = Rule("rating", "positive", lambda s: ~(s <= 0), "a weight of 0 or less", "weights are positive")
            rules.append(positive)
    if "timestamp" in columns:
        right = f"timestamps are UNIX seconds, from 0 (1970) to before {LATEST} (2100)"
        rules += [
            _there("timestamp"),
            Rule("timestamp", "negative", _within(0, np.inf), "a negative timestamp", right),
            Rule("timestamp", "late", _within(-np.inf, np.nextafter(LATEST, 0)), _unit, right),
        ]
    if "position" in columns:
        right = "positions count a user's interactions in their order, from 0 or 1"
        counts = lambda s: s.isna() | (s.between(0, 2**53) & s.mod(1).eq(0))  # noqa: E731
        rules += [_there("position"), Rule("position", "count", counts, "an impossible position", right)]
    return rules


def _unit(values: pd.Series) -> str:
    """Name what timestamps that are too large seem to be counted in.

    >>> _unit(pd.Series([881250949000]))
    "timestamps that look like milliseconds (divide them by 1,000, or pass time_unit='ms' if all are)"
    """
    middle = float(values.median())
    for unit, (short, factor) in _UNITS.items():
        if 1e8 <= middle / factor < LATEST:
            by = f"{int(factor):,}"
            return f"timestamps that look like {unit} (divide them by {by}, or pass time_unit={short!r} if all are)"
    return "an absurdly late timestamp"


def item_rules(columns: Sequence[str]) -> list[Rule]:
    """Rules of the items: one row each, with a year that can be one where there are years."""
    good, right = lambda s: ~((s < -3000) | (s > 2100) | (s % 1 > 0)), "years are whole, -3000 to 2100"
    years = [Rule("year", "year", good, "an absurd year", right)] if "year" in columns else []
    return [*_id_rules("item_id"), _unique("item_id"), *years]


def check(
    frame: pd.DataFrame,
    rules: Sequence[Rule],
    file: str,
    lines: Callable[[Sequence[int]], Sequence[int]] = list,
    *,
    columns: Sequence[str] = (),
    spare: Sequence[str] = (),
    headed: bool = False,
) -> Outcome:
    """Check a table, whose index counts the rows of the file from 0, against rules, every one of them.

    For the sentences: name of the file, the line that each of a few rows stands on, names in the file (where they are
    not those of the table), those of them that may be mapped, and whether they stand in the first line of a text.

    >>> frame = pd.DataFrame({"user_id": [1, 2], "item_id": [5, 5], "rating": [3.0, 7.0]})
    >>> check(frame, interaction_rules(frame.columns, (1, 5)), "plays.csv").problems
    ["plays.csv, column 'rating': 1 row with a rating off the scale (line 1: 7.0); ratings here go from 1 to 5"]
    """
    checks: dict[str, list[pa.Check]] = {}
    for rule in rules:
        checks.setdefault(rule.column, []).append(pa.Check(rule.good, name=rule.name, ignore_na=False))
    schema = pa.DataFrameSchema({name: pa.Column(nullable=True, checks=made) for name, made in checks.items()})
    bad = np.zeros(len(frame), dtype=bool)
    try:
        schema.validate(frame, lazy=True, inplace=True)
    except pa.errors.SchemaErrors as errors:
        failures = errors.failure_cases
    else:
        return Outcome([], bad, [])
    lacking = failures.loc[failures["check"] == "column_in_dataframe", "failure_case"].tolist()
    columns = list(map(str, columns or frame.columns))
    problems = [_lacks(file, lacking, columns, spare, headed=headed)] if lacking else []
    for rule in rules:
        failed = failures[(failures["column"] == rule.column) & (failures["check"] == rule.name)]
        if len(failed):
            wrong = frame.index.isin(failed["index"])
            values = frame.loc[wrong, rule.column]
            says = rule.wrong if isinstance(rule.wrong, str) else rule.wrong(values)
            problems.append(f"{file}, column {rule.column!r}: {_rows(values, lines, says)}; {rule.right}")
            bad |= wrong
    return Outcome(problems, bad, lacking)


def _lacks(file: str, lacking: list[str], columns: list[str], spare: Sequence[str], *, headed: bool) -> str:
    """That columns are not there, and what may be passed."""
    mapping, hint = dict(zip(spare, lacking, strict=False)), ""
    if headed and len(columns) == 1 and (mark := re.search(r"[^\w\s.'\"-]", columns[0])):
        hint = f" (say what parts its columns, such as separator={mark[0]!r})"
    elif len(columns) > MOST_COLUMNS:
        hint = " (of a matrix make rows of one user and one item first, as pandas.melt does)"
    elif len(mapping) == len(lacking):
        bare = f", or names={names_of(len(columns))} if its first line is a row"
        hint = f" (say which is which, such as columns={mapping}{bare * (headed and len(spare) == len(columns))})"
    shown = ", ".join(columns[:MOST_COLUMNS]) + ", ..." * (len(columns) > MOST_COLUMNS)
    return f"{file} has no column {' and no column '.join(map(repr, lacking))}; it has {shown or 'none'}{hint}"


def _rows(values: pd.Series, lines: Callable[[Sequence[int]], Sequence[int]], says: str) -> str:
    """How many rows, with what, and the first three of them."""
    first = values.iloc[:_SHOWN]
    shown = ", ".join(f"line {line}: {_shown(value)}" for line, value in zip(lines(first.index), first, strict=True))
    more = ", ..." if len(values) > _SHOWN else ""
    return f"{len(values):,} row{'s' * (len(values) > 1)} with {says} ({shown}{more})"


def _shown(value: object) -> str:
    """A value as it would be written."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "nothing"
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def take_feedback(tables: RawTables, *, implicit: bool, duplicates: str) -> bool:
    """Put ratings, weights or ones into the column "rating"; True if they are ratings."""
    frame = tables.interactions
    rated, weighed = "rating" in frame, WEIGHT in frame
    if rated and weighed and not implicit:
        raise ValueError("there are ratings and weights; map one of them, or pass implicit=True to read the weights")
    explicit = rated and not implicit
    if explicit and duplicates == "sum":
        raise ValueError("duplicates='sum' adds up weights; ratings cannot be added up, keep the 'last' of them")
    if not explicit and len(frame.columns):
        frame = frame.drop(columns="rating", errors="ignore").rename(columns={WEIGHT: "rating"})
        frame = frame if weighed else frame.assign(rating=np.ones(len(frame), np.float32))
    order = ("user_id", "item_id", "rating", "timestamp", "position")
    tables.interactions = frame[[column for column in order if column in frame]]
    return explicit


def drop_not_rated(tables: RawTables, not_rated: float | Sequence[float]) -> dict[str, int]:
    """Leave out the rows whose rating means that there is none, and count them."""
    meant = np.atleast_1d(np.asarray(not_rated, dtype=float))
    if not len(meant) or "rating" not in tables.interactions:
        return {}
    rows = pd.to_numeric(tables.interactions["rating"], errors="coerce").isin(meant).to_numpy()
    tables.interactions = tables.interactions[~rows]
    return {f"rows of {tables.file('interactions')} that are not rated": int(rows.sum())} if rows.any() else {}


def clean(
    tables: RawTables,
    scale: Scale | None,
    *,
    weights: bool,
    duplicates: str = "last",
    bad_rows: str = "raise",
    missing_items: str = "raise",
) -> dict[str, int]:
    """Check all tables, in place, leave out what the options of ``load_dataset`` allow, and give what that was.

    Ratings or weights are in the column "rating". BadTableError with all problems of all tables.
    """
    dropped: dict[str, int] = {}
    file, drop = tables.file("interactions"), bad_rows == "drop"
    problems = list(tables.unread)
    may_drop = not drop and len(tables.interactions) > 0
    if not problems and not len(tables.interactions):
        problems = [f"{file} holds no rows"]
    elif drop and len(tables.interactions):
        problems = _warn(problems)
        if "interactions" in tables.skipped:
            dropped[f"lines of {file} that cannot be read"] = len(tables.skipped["interactions"])
    rules = {
        "interactions": interaction_rules(tables.interactions.columns, scale, weights=weights),
        "items": item_rules(() if tables.items is None else tables.items.columns),
        "users": [_there("user_id"), _unique("user_id")],
    }
    for name, table_rules in rules.items():
        if getattr(tables, name) is not None:
            wrong, of_rows = _check_table(tables, name, table_rules, drop=drop, dropped=dropped)
            problems, may_drop = problems + wrong, may_drop and of_rows
    if dropped and not problems:  # without the bad rows all ids may be whole
        agree_on_ids((tables.interactions, tables.items, tables.users))
    unknown = np.zeros(0, bool) if missing_items == "keep" else _unknown_items(tables)
    if unknown.any() and (missing_items == "raise" or unknown.all()):
        items, ids = tables.file("items"), tables.interactions.loc[unknown, "item_id"]
        lines = partial(tables.lines, "interactions")
        says = f"{'an item' if ids.nunique() == 1 else f'{ids.nunique():,} items'} that {items} lacks"
        problems.append(
            f"{file}, column 'item_id': {_rows(ids, lines, says)}; complete {items}, or load with "
            "missing_items='keep' (the id is the title then) or missing_items='drop'"
        )
    if problems:
        may_drop = may_drop and not unknown.any()
        raise BadTableError(problems, "bad_rows='drop' leaves such rows out and goes on" if may_drop else "")
    if unknown.any():
        dropped[f"rows whose item {tables.file('items')} lacks"] = int(unknown.sum())
        tables.interactions = tables.interactions[~unknown].reset_index(drop=True)
    if duplicates != "keep":
        _drop_duplicates(tables, duplicates, dropped)
    return dropped


def _unknown_items(tables: RawTables) -> np.ndarray:
    """Rows of the interactions whose item has no row of its own, (n_rows,) bool; none where there is no such table."""
    interactions, items = tables.interactions, tables.items
    if items is None or "item_id" not in items or "item_id" not in interactions:
        return np.zeros(len(interactions), bool)
    used = pd.Series(interactions["item_id"].dropna().unique())
    return interactions["item_id"].isin(used[~used.isin(items["item_id"])]).to_numpy()


def _warn(sentences: list[str]) -> list[str]:
    for sentence in sentences:
        _log.warning(sentence)
    return []


def _check_table(
    tables: RawTables, name: str, rules: Sequence[Rule], *, drop: bool, dropped: dict[str, int]
) -> tuple[list[str], bool]:
    """Check the types of a table's columns, then the values of the rows whose types are right.

    Gives what forbids to go on, and whether it would not if bad rows were left out. The table gets its right types,
    without the bad rows where they may be left out.
    """
    frame, file, own = getattr(tables, name), tables.file(name), name == "interactions"
    if own and not len(frame) and not len(frame.columns):
        return [], False  # an empty file, which the reader has named
    how = {"columns": tables.columns, "spare": tables.spare} if own else {"spare": list(frame.columns)}
    how |= {"lines": partial(tables.lines, name), "headed": own and name in tables.forms and tables.forms[name].header}
    type_rules_here = type_rules(frame.columns, whole_ids=tables.whole_ids)
    types = check(frame, type_rules_here, file, **how)
    text = [rule.column for rule in type_rules_here if not pd.api.types.is_numeric_dtype(frame[rule.column].dtype)]
    numeric = frame.assign(**{column: pd.to_numeric(frame[column], errors="coerce") for column in text})
    values = check(numeric[~types.bad] if types.bad.any() else numeric, rules, file, **how)
    bad = types.bad.copy()
    bad[~types.bad] |= values.bad
    problems = types.problems + values.problems
    if problems and (not drop or values.lacking or bad.all()):
        return problems, not values.lacking and not bad.all()
    if bad.any():
        dropped[f"rows of {file} with missing or impossible values"] = int(bad.sum())
        _warn(problems)
        numeric = numeric[~bad].reset_index(drop=True)
    kinds = _TYPES | {column: np.int64 for column in _IDS if column in numeric and numeric[column].dtype.kind in "iuf"}
    changed = {column: kind for column, kind in kinds.items() if column in numeric and numeric[column].dtype != kind}
    setattr(tables, name, numeric.astype(changed) if changed else numeric)
    return [], True


def _pair_keys(frame: pd.DataFrame) -> np.ndarray:
    """A number for each pair of user and item, (n_rows,) int64."""
    users, items = frame["user_id"], frame["item_id"]
    if users.dtype.kind == "i" and items.dtype.kind == "i" and min(users.min(), items.min()) >= 0:
        width = int(items.max()) + 1
        if (int(users.max()) + 1) * width < 2**63:
            keys = users.to_numpy() * np.int64(width)
            keys += items.to_numpy()  # in place: memory that is new takes longer than the sum
            return keys
    user, item = (pd.factorize(values)[0].astype(np.int64) for values in (users, items))
    return user * (item.max() + 1) + item


def _drop_duplicates(tables: RawTables, duplicates: str, dropped: dict[str, int]) -> None:
    """Leave each pair of user and item once."""
    frame = tables.interactions
    keys = _pair_keys(frame)
    if (keys[1:] > keys[:-1]).all():  # as in MovieLens's files
        return
    keys.sort()  # in place, too
    if (keys[1:] > keys[:-1]).all():
        return
    keys = _pair_keys(frame)
    if duplicates == "sum":
        sums = frame["rating"].astype(np.float64).groupby(keys, sort=False).transform("sum")
        frame = frame.assign(rating=sums.astype(np.float32))
    when, pairs = order_column(frame), pd.Series(keys)
    pairs = pairs.iloc[np.argsort(frame[when].to_numpy(), kind="stable")] if when else pairs
    kept = pairs.drop_duplicates(keep="last").index.sort_values()
    what = "added to another" if duplicates == "sum" else "before the last one"
    dropped[f"rows {what} of the same user and item"] = len(frame) - len(kept)
    tables.interactions = frame.iloc[kept].reset_index(drop=True)


def complete_items(items: pd.DataFrame | None, interactions: pd.DataFrame) -> pd.DataFrame:
    """One row for every item: those without one, or without a title, get their id as title."""
    ids = pd.Series(interactions["item_id"].unique(), name="item_id")
    if items is not None:
        ids = ids[~ids.isin(items["item_id"])]
        items = items.assign(title=items["title"].fillna(items["item_id"].astype("str")))
        if not len(ids):
            return items
    ids = ids.sort_values(ignore_index=True)
    years = pd.array([pd.NA] * len(ids), dtype="Int16")
    bare = pd.DataFrame({"item_id": ids, "title": ids.astype("str"), "year": years, "genres": [[] for _ in ids]})
    return bare if items is None else pd.concat([items, bare], ignore_index=True)


def complete_users(users: pd.DataFrame | None, interactions: pd.DataFrame) -> pd.DataFrame:
    """One row for every user of the interactions, in the order of their ids."""
    ids = pd.DataFrame({"user_id": interactions["user_id"].unique()}).sort_values("user_id", ignore_index=True)
    return ids if users is None else ids.merge(users, on="user_id", how="left")
