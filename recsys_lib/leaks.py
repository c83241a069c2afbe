"""Checks that nothing of the test reaches what is fitted: on a split, on features, on a fitted pipeline.

Each check gives :class:`Finding` objects; :func:`table` shows them, :func:`require` stops on the first that fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from recsys_lib.splits import Split

PER_PERSON = ("temporal_user", "leave_one_out")  # promise the order of time within each person
ONE_CUT = ("temporal_global", "rolling")  # promise it for everybody at once


class LeakError(ValueError):
    """Something of the test part reaches what is fitted."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check
        What was looked at, in words.
    passed
        Whether it is as promised.
    detail
        The figures behind it.
    """

    check: str
    passed: bool
    detail: str


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row a check: check, passed, detail.

    >>> table([Finding("no pair twice", True, "0 of 10 rows")])["passed"].tolist()
    [True]
    """
    return pd.DataFrame([asdict(finding) for finding in findings], columns=["check", "passed", "detail"])


def require(findings: Iterable[Finding]) -> None:
    """Stop if any check failed.

    Raises
    ------
    LeakError
        Naming every check that failed.
    """
    failed = [f"{finding.check}: {finding.detail}" for finding in findings if not finding.passed]
    if failed:
        raise LeakError("; ".join(failed))


# ---- a split -----------------------------------------------------------------------------------------------------


def check_split(split: Split) -> list[Finding]:
    """Look for pairs in two parts, for order in time where the split promises it, and for parts without rows."""
    findings = [_shared_pairs(split)]
    if split.name in PER_PERSON and "timestamp" in split.train:
        findings += [_order_per_person(before, after, names) for before, after, names in _neighbours(split)]
    if split.name in ONE_CUT:
        findings += [_order_for_all(before, after, names) for before, after, names in _neighbours(split)]
    return [*findings, Finding("the test has rows", len(split.test) > 0, f"{len(split.test):,} rows")]


def _neighbours(split: Split) -> list[tuple[pd.DataFrame, pd.DataFrame, str]]:
    """Parts that follow each other in time."""
    return [
        (split.train, split.valid, "train before validation"),
        (split.history, split.test, "train and validation before test"),
    ]


def _shared_pairs(split: Split) -> Finding:
    """Rows whose pair (user, item) stands in the parts more than once."""
    pairs = pd.concat([part[["user_id", "item_id"]] for part in (split.train, split.valid, split.test)])
    twice = int(pairs.duplicated().sum())
    return Finding("no pair of person and film stands in two parts", twice == 0, f"{twice:,} of {len(pairs):,} rows")


def _order_per_person(before: pd.DataFrame, after: pd.DataFrame, names: str) -> Finding:
    """Rows of ``after`` that are older than the same person's newest row of ``before``."""
    newest = before.groupby("user_id")["timestamp"].max()
    late = int((after["timestamp"].to_numpy() < newest.reindex(after["user_id"]).to_numpy()).sum())
    return Finding(f"{names}, person by person", late == 0, f"{late:,} of {len(after):,} rows are out of order")


def _order_for_all(before: pd.DataFrame, after: pd.DataFrame, names: str) -> Finding:
    """Rows of ``after`` that are not newer than every row of ``before``."""
    newest = before["timestamp"].max() if len(before) else np.iinfo(np.int64).min
    late = int((after["timestamp"] <= newest).sum())
    return Finding(f"{names}, everybody at once", late == 0, f"{late:,} of {len(after):,} rows are out of order")
