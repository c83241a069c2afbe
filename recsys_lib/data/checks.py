"""Checks of tables: all problems of a data set at once, each in one sentence with the file, the column and the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pandera.pandas as pa

from recsys_lib.data.tables import RawTables, Trouble

LATEST = 4_102_444_800  # 2100-01-01, UNIX seconds
_SHOWN = 3
_UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


class BadTableError(ValueError):
    """Tables that do not hold what they should.

    Attributes
    ----------
    problems : list of str
        One sentence each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Rule:
    """What every value of a column must be.

    Attributes
    ----------
    column
        The column; it must be there.
    name
        Short name of the rule.
    good
        From the column to a boolean for each row.
    wrong
        What is said of the rows where it is false, or how to say it from their values.
    right
        What would be right.
    """

    column: str
    name: str
    good: Callable[[pd.Series], pd.Series | np.ndarray]
    wrong: str | Callable[[pd.Series], str]
    right: str


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes
    ----------
    problems : list of str
        One sentence each.
    bad : ndarray of bool, (n_rows,)
        Rows that break a rule.
    lacking : list of str
        Columns that are not there.
    """

    problems: list[str]
    bad: np.ndarray
    lacking: list[str]


def is_number(values: pd.Series) -> pd.Series:
    """Whether each value is a number, or missing."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        return pd.Series(True, index=values.index)
    return pd.to_numeric(values, errors="coerce").notna() | values.isna()


def _is_there(values: pd.Series) -> pd.Series:
    there = values.notna()
    return there if pd.api.types.is_numeric_dtype(values.dtype) else there & values.ne("")


def _number(column: str) -> Rule:
    return Rule(column, "number", is_number, f"a {column} that is not a number", f"a {column} is a number")


def _whole(column: str) -> Rule:
    wrong, right = f"a {column} that is not a whole number", "in this format ids are whole numbers"
    return Rule(column, "whole", lambda s: is_number(s) & ~_fraction(s), wrong, right)


def _fraction(values: pd.Series) -> pd.Series:
    return pd.to_numeric(values, errors="coerce").mod(1).gt(0)


def _there(column: str) -> Rule:
    return Rule(column, "there", _is_there, "no value", f"every row needs its {column}")


def _unique(column: str) -> Rule:
    return Rule(column, "unique", lambda s: ~s.duplicated(), f"the {column} of an earlier row", "one row each is right")


def type_rules(columns: Sequence[str], *, whole_ids: bool = False) -> list[Rule]:
    """Rules that come first: what must be numbers is."""
    rules = [_number(column) for column in columns if column in ("rating", "timestamp", "year")]
    return rules + [_whole(column) for column in columns if whole_ids and column in ("user_id", "item_id")]


def interaction_rules(
    columns: Sequence[str], scale: tuple[float, float] | None, *, weights: bool = False
) -> list[Rule]:
    """Rules of the interactions, of columns that are numbers already.

    Parameters
    ----------
    columns
        Columns that there are beside user_id and item_id.
    scale
        Lowest and highest rating; None where any number is right.
    weights
        Whether the ratings are weights of implicit feedback, which are positive.
    """
    rules = [_there("user_id"), _there("item_id")]
    if "rating" in columns:
        finite = Rule("rating", "finite", lambda s: ~np.isinf(s), "an infinite rating", "ratings are finite")
        rules += [_there("rating"), finite]
    if "rating" in columns and scale is not None:
        low, high = scale
        within = Rule(
            "rating",
            "scale",
            lambda s: s.between(low, high) | s.isna() | np.isinf(s),
            "a rating off the scale",
            f"ratings here go from {low:g} to {high:g}",
        )
        rules.append(within)
    if "rating" in columns and weights:
        rules.append(Rule("rating", "positive", lambda s: ~(s <= 0), "a weight of 0 or less", "weights are positive"))
    if "timestamp" in columns:
        right = "timestamps are UNIX seconds, from 0 (1970) to before 4102444800 (2100)"
        rules += [
            _there("timestamp"),
            Rule("timestamp", "negative", lambda s: ~(s < 0), "a negative timestamp", right),
            Rule("timestamp", "late", lambda s: ~(s >= LATEST), _unit, right),
        ]
    return rules


def _unit(values: pd.Series) -> str:
    """Name what timestamps that are too large seem to be counted in.

    >>> _unit(pd.Series([881250949000]))
    'timestamps that look like milliseconds (divide them by 1,000)'
    """
    middle = float(values.median())
    for unit, factor in _UNITS.items():
        if 1e8 <= middle / factor < LATEST:
            return f"timestamps that look like {unit} (divide them by {int(factor):,})"
    return "an absurdly late timestamp"


ITEM_RULES = (_there("item_id"), _unique("item_id"))
USER_RULES = (_there("user_id"), _unique("user_id"))
YEAR = Rule(
    "year",
    "year",
    lambda s: ~((s < 1800) | (s > 2100) | (s % 1 > 0)),
    "an absurd year",
    "years are whole, 1800 to 2100",
)


def check(
    frame: pd.DataFrame,
    rules: Sequence[Rule],
    file: str,
    first_line: int = 1,
    *,
    trouble: Trouble | None = None,
    columns: Sequence[str] = (),
) -> Outcome:
    """Check a table against rules, every one of them, in one go over each column.

    Parameters
    ----------
    frame
        Its index counts the rows of the file from 0.
    rules
        Their columns must be there.
    file
        Name of the file, for the sentences.
    first_line
        Line of the file that the first row stands on.
    trouble
        Lines that were skipped while reading.
    columns
        Names in the file, if they are a person's own; by default those of the table.

    Examples
    --------
    >>> frame = pd.DataFrame({"user_id": [1, 2], "item_id": [5, 5], "rating": [3.0, 7.0]})
    >>> check(frame, interaction_rules(frame.columns, (1, 5)), "plays.csv", first_line=2).problems
    ["plays.csv, column 'rating': 1 row with a rating off the scale (line 3: 7.0); ratings here go from 1 to 5"]
    """
    failures = _failures(frame, rules)
    lacking = failures.loc[failures["check"] == "column_in_dataframe", "failure_case"].tolist()
    problems = [
        _lacking(column, file, columns or list(map(str, frame.columns)), own=bool(columns)) for column in lacking
    ]
    bad = np.zeros(len(frame), dtype=bool)
    for rule in rules:
        failed = failures[(failures["column"] == rule.column) & (failures["check"] == rule.name)]
        if len(failed):
            wrong = frame.index.isin(failed["index"])
            lines = (trouble or Trouble()).lines_of(file, frame.index[wrong].to_numpy(), first_line)
            problems.append(_sentence(frame.loc[wrong, rule.column], lines, rule, file))
            bad |= wrong
    return Outcome(problems, bad, lacking)


def _failures(frame: pd.DataFrame, rules: Sequence[Rule]) -> pd.DataFrame:
    """Let pandera look at every column: each row that breaks a rule (column, check, index)."""
    checks: dict[str, list[pa.Check]] = {}
    for rule in rules:
        made = pa.Check(rule.good, name=rule.name, ignore_na=False)
        checks.setdefault(rule.column, []).append(made)
    schema = pa.DataFrameSchema({name: pa.Column(nullable=True, checks=made) for name, made in checks.items()})
    try:
        schema.validate(frame, lazy=True, inplace=True)
    except pa.errors.SchemaErrors as found:
        return found.failure_cases
    return pd.DataFrame({"column": [], "check": [], "failure_case": [], "index": []})


def _lacking(column: str, file: str, present: Sequence[str], *, own: bool) -> str:
    """Say that a column is not there, and how to map one."""
    hint = f" (say which is which: columns={{{present[0]!r}: {column!r}}})" if own else ""
    return f"{file} has no column {column!r}; it has {', '.join(present) or 'none'}{hint}"


def _sentence(values: pd.Series, lines: np.ndarray, rule: Rule, file: str) -> str:
    says = rule.wrong if isinstance(rule.wrong, str) else rule.wrong(values)
    return f"{file}, column {rule.column!r}: {_rows(values, lines, says)}; {rule.right}"


def _rows(values: pd.Series, lines: np.ndarray, says: str) -> str:
    """How many rows, with what, and the first three of them."""
    pairs = zip(lines[:_SHOWN], values.iloc[:_SHOWN], strict=True)
    shown = ", ".join(f"line {line}: {_shown(value)}" for line, value in pairs)
    more = ", ..." if len(lines) > _SHOWN else ""
    return f"{len(lines):,} row{'s' * (len(lines) > 1)} with {says} ({shown}{more})"


def _shown(value: object) -> str:
    """A value as a person would write it."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "nothing"
    return repr(value.item() if isinstance(value, np.generic) else value)


def unknown_items(interactions: pd.DataFrame, items: pd.DataFrame) -> np.ndarray:
    """Rows of the interactions whose item has no row of its own, (n_rows,) bool."""
    used = pd.Series(interactions["item_id"].dropna().unique())
    lacking = used[~used.isin(items["item_id"])]
    return interactions["item_id"].isin(lacking).to_numpy() if len(lacking) else np.zeros(len(interactions), bool)


def unknown_items_sentence(tables: RawTables, rows: np.ndarray) -> str:
    """Say which items have no row of their own, and what can be done."""
    file, items = (tables.file(name) for name in ("interactions", "items"))
    ids = tables.interactions.loc[rows, "item_id"]
    n = ids.nunique()
    says = f"{'an item' if n == 1 else f'{n:,} items'} that {items} lacks"
    lines = tables.trouble.lines_of(file, np.flatnonzero(rows), tables.first_line)
    return (
        f"{file}, column 'item_id': {_rows(ids, lines, says)}; complete {items}, or load with "
        "missing_items='keep' (the id is the title then) or missing_items='drop'"
    )
