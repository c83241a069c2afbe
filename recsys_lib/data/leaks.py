"""Checks that nothing of the test reaches what is fitted: on a split, on features, on a fitted pipeline.

Each check gives :class:`Finding` objects; :func:`table` shows them, :func:`require` stops on the first that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm, rankdata

from recsys_lib.data.interactions import order_column
from recsys_lib.data.splits import Split

PER_USER = ("temporal_user", "return_visit", "leave_one_out")  # promise the order of time within each user
ONE_CUT = ("temporal_global", "rolling")  # promise it for everybody at once
AGREEMENT_LIMIT = 0.9  # honest models reach 70 to 75% on MovieLens; with the target among the inputs it is 100%
RMSE_FLOOR_U1 = 0.86  # stars, on ml-100k's u1; the best published without a leak is .887 (GHRS, 2022)
COLUMN_LIMIT = 0.9  # area under the ROC curve of one input alone
FALSE_ALARMS = 0.001  # share of tables without any leak in which a check of numbers may alarm by chance


class LeakError(ValueError):
    """Something of the test part reaches what is fitted."""


@dataclass(frozen=True)
class Finding:
    """One check: what was checked, whether it is as promised, and the figures behind it."""

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
    """Raise a LeakError that names every check that failed, if any did."""
    failed = [f"{finding.check}: {finding.detail}" for finding in findings if not finding.passed]
    if failed:
        raise LeakError("; ".join(failed))


# ---- a split -----------------------------------------------------------------------------------------------------


def check_split(split: Split) -> list[Finding]:
    """Check that no pair is in two parts, that time is in order where that is promised, and that the test has rows."""
    pairs = pd.concat([part[["user_id", "item_id"]] for part in (split.train, split.valid, split.test)])
    twice = int(pairs.duplicated().sum())
    detail = f"{twice:,} of {len(pairs):,} rows"
    known = "repeats" in split.params  # of a last item that the user had before: it stays, and cannot be hit
    findings = [Finding("no pair of user and item stands in two parts", twice == 0 or known, detail)]
    when = order_column(split.train)
    for before, after, names in (
        (split.train, split.valid, "train before validation"),
        (split.history, split.test, "train and validation before test"),
    ):
        if split.name in PER_USER and when:
            newest = before.groupby("user_id")[when].max().reindex(after["user_id"]).to_numpy()
            late, how = int((after[when].to_numpy() < newest).sum()), "user by user"
        elif split.name in ONE_CUT:
            late, how = int((after["timestamp"] <= before["timestamp"].max()).sum()), "everybody at once"
        else:
            continue
        findings.append(Finding(f"{names}, {how}", late == 0, f"{late:,} of {len(after):,} rows are out of order"))
    return [*findings, Finding("the test has rows", len(split.test) > 0, f"{len(split.test):,} rows")]


def sample_users(split: Split, rows: int, seed: int = 0) -> Split:
    """All interactions of users drawn by chance, about ``rows`` in all: to check large data in little time."""
    parts = (split.train, split.valid, split.test)
    sizes = pd.concat([part["user_id"] for part in parts]).value_counts(sort=False).sample(frac=1, random_state=seed)
    if sizes.sum() <= rows:
        return split
    chosen = sizes.index[: max(1, int((sizes.cumsum() <= rows).sum()))]
    train, valid, test = (part[part["user_id"].isin(chosen)].reset_index(drop=True) for part in parts)
    return replace(split, train=train, valid=valid, test=test)


# ---- a pipeline --------------------------------------------------------------------------------------------------

Outputs = Mapping[str, Any]  # name -> array or DataFrame


def check_pipeline(
    run: Callable[[Split], Outputs], split: Split, *, probes: int = 4, tolerance: float = 1e-6, seed: int = 0
) -> list[Finding]:
    """Run something that fits anew on every call, on data whose test part was changed, and compare what it makes.

    - Test ratings shuffled: every output must stay equal, bit by bit.
    - Test rows dropped, their films and ratings swapped: every output whose name does not start with "test" must.
    - One training rating changed, ``probes`` times over: that row's own line of the output "train" must stay as it was
      (the change reaches other rows, as it should). Without an output "train" this is left out.

    - ``run``: takes a split; returns arrays or tables by name: features, statistics of an encoder, predictions.
    - ``split``: small enough to fit on ``3 + probes`` times; see :func:`sample_users`.
    - ``tolerance``: how far a row's own line may move, as a share of the ratings' range: one rating of n moves a mean.
    """
    rng = np.random.default_rng(seed)
    expected = run(split)
    findings = []
    if split.test["rating"].nunique() > 1:
        shuffled = replace(split, test=_with_ratings_shuffled(split.test, rng))
        findings.append(_compared("test ratings shuffled: nothing changes", expected, run(shuffled)))
    fitted = {name: value for name, value in expected.items() if not name.startswith("test")}
    others = run(replace(split, test=_replaced(split, rng)))
    findings.append(_compared("other test rows: nothing that was fitted changes", fitted, others))
    if "train" in expected and split.train["rating"].nunique() > 1:
        findings.append(_own_rating(run, split, expected["train"], probes, tolerance, rng))
    return findings


def check_fitted(predict: Callable[[pd.DataFrame], Any], test: pd.DataFrame) -> list[Finding]:
    """Ask for the test rows twice, the second time with their ratings shuffled: no bit of the answer may differ.

    ``predict`` takes rows (user_id, item_id, rating, timestamp) and returns predictions, scores or features.
    """
    shuffled = _with_ratings_shuffled(test, np.random.default_rng(0))
    before, after = {"predictions": predict(test)}, {"predictions": predict(shuffled)}
    return [_compared("test ratings shuffled: no prediction changes", before, after)]


def _with_ratings_shuffled(test: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return test.assign(rating=rng.permutation(test["rating"].to_numpy(copy=True)))


def _replaced(split: Split, rng: np.random.Generator) -> pd.DataFrame:
    """Half of the test rows, with films and ratings that are not theirs; no pair that the history holds."""
    pair = ["user_id", "item_id"]
    half = split.test.iloc[np.sort(rng.permutation(len(split.test))[: max(1, len(split.test) // 2)])]
    for column in ("item_id", "rating"):
        half = half.assign(**{column: rng.permutation(half[column].to_numpy(copy=True))})
    seen = pd.concat([split.history[pair], half[pair]]).duplicated().to_numpy()[len(split.history) :]
    return half[~seen].reset_index(drop=True)


def _compared(check: str, expected: Outputs, actual: Outputs) -> Finding:
    """Compare outputs bit by bit; NaN equals NaN."""
    changed = [name for name, value in expected.items() if not _same(value, actual[name])]
    detail = f"changed: {', '.join(changed)}" if changed else f"{len(expected)} outputs are equal bit by bit"
    return Finding(check, not changed, detail)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, pd.DataFrame | pd.Series):
        return one.equals(other)
    one, other = np.asarray(one), np.asarray(other)
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f" and other.dtype.kind == "f")


def _own_rating(
    run: Callable[[Split], Outputs],
    split: Split,
    expected: Any,
    probes: int,
    tolerance: float,
    rng: np.random.Generator,
) -> Finding:
    """Change single training ratings; the row's own line of "train" may move by tolerance and rounding alone."""
    ratings = split.train["rating"].to_numpy()
    low, high = ratings.min(), ratings.max()
    before, moved = pd.DataFrame(expected), set()
    rows = rng.choice(len(ratings), size=min(probes, len(ratings)), replace=False)
    for row in rows:
        changed = ratings.copy()
        changed[row] = high if ratings[row] < (low + high) / 2 else low
        after = pd.DataFrame(run(replace(split, train=split.train.assign(rating=changed)))["train"])
        for column in before:
            one, other = before[column].iloc[row], after[column].iloc[row]
            if pd.api.types.is_number(one) and pd.api.types.is_number(other):
                same = np.isclose(float(one), float(other), rtol=1e-5, atol=tolerance * (high - low), equal_nan=True)
            else:
                same = one == other or (pd.isna(one) and pd.isna(other))
            if not same:
                moved.add(str(column))
    tried = f"{len(rows)} rows tried, {before.shape[1]} columns"
    detail = f"moved: {', '.join(sorted(moved))}" if moved else tried
    return Finding("a training row's own rating is not in its features", not moved, detail)


# ---- predictions -------------------------------------------------------------------------------------------------


def rating_step(ratings: np.ndarray) -> float:
    """Smallest difference between two ratings in the data; 1 where there is only one."""
    steps = np.diff(np.unique(ratings))
    return float(steps.min()) if len(steps) else 1.0


def agreement(predicted: np.ndarray, ratings: np.ndarray, *, relevant_from: float = 4.0) -> float:
    """Share of rows in which the prediction, rounded, is on the same side of ``relevant_from`` as the rating.

    On whole stars: ``(prediction >= 3.5) == (rating >= 4)``.

    >>> agreement(np.array([3.6, 3.4, 2.0]), np.array([4.0, 5.0, 1.0])).__round__(3)
    0.667
    """
    side = np.asarray(predicted) >= relevant_from - rating_step(np.asarray(ratings)) / 2
    return float((side == (np.asarray(ratings) >= relevant_from)).mean())


def check_predictions(
    predicted: np.ndarray, ratings: np.ndarray, *, relevant_from: float = 4.0, rmse_floor: float | None = None
) -> list[Finding]:
    """Alarm at predictions, (n,), that are better than can be; rows without one (NaN) are left out.

    Agreement with who liked what (``rating >= relevant_from``) alarms from 90% on, if it is above what the more
    frequent side alone gives (binomial test at 0.001), and an error under ``rmse_floor`` does (:func:`rmse_floor`).
    """
    predicted, ratings = np.asarray(predicted, dtype=np.float64), np.asarray(ratings, dtype=np.float64)
    kept = ~np.isnan(predicted)
    predicted, ratings, n = predicted[kept], ratings[kept], int(kept.sum())
    share, liked = agreement(predicted, ratings, relevant_from=relevant_from), float((ratings >= relevant_from).mean())
    by_chance = binomtest(round(share * n), n, max(liked, 1 - liked), alternative="greater").pvalue
    knows = share >= AGREEMENT_LIMIT and by_chance < FALSE_ALARMS
    detail = f"{share:.1%} of {n:,} rows (alarm from {AGREEMENT_LIMIT:.0%})"
    findings = [Finding("predictions do not know who liked what", not knows, detail)]
    if rmse_floor is not None:
        rmse = float(np.sqrt(np.mean((predicted - ratings) ** 2)))
        detail = f"RMSE {rmse:.3f} (a leak is presumed under {rmse_floor:g})"
        findings.append(Finding("the error is not too small to be true", rmse >= rmse_floor, detail))
    return findings


def rmse_floor(split: Split) -> float | None:
    """RMSE under which a leak is presumed: known for ml-100k's u1, None elsewhere."""
    return RMSE_FLOOR_U1 if split.name == "canonical_fold" and split.params.get("k") == 1 else None


def check_columns(
    features: pd.DataFrame, ratings: np.ndarray, *, relevant_from: float = 4.0, asked: str = "who liked what"
) -> list[Finding]:
    """Alarm at single features that tell liked rows from the others: area under the ROC curve of at least 0.9.

    On few rows chance reaches that: there is an alarm only where a rank-sum test says that chance would give one in
    fewer than 1 of 1,000 tables (Bonferroni over the columns).
    """
    liked = np.asarray(ratings) >= relevant_from
    if liked.all() or not liked.any():
        return [Finding(f"no feature alone tells {asked}", True, "all rows are alike, nothing to tell")]
    measured = pd.DataFrame({column: _area(features[column], liked) for column in features}, index=["area", "p"]).T
    best, area = measured["area"].idxmax(), measured["area"].max()
    certain = measured["p"] * len(measured) < FALSE_ALARMS
    suspicious = measured.index[(measured["area"] >= COLUMN_LIMIT) & certain].tolist()
    detail = f"alarm: {', '.join(suspicious)}" if suspicious else f"highest: {best} with {area:.2f} of 1"
    return [Finding(f"no feature alone tells {asked}", not suspicious, detail)]


def _area(values: pd.Series, liked: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, 0.5 to 1, and the p-value of the rank-sum test (Mann and Whitney, 1947).

    Numbers count either way round. A category's value is the share of liked rows among its other rows, so that chance
    alone makes no area above one half. 0.5 and 1 where there is nothing to rank.
    """
    sides = 2
    if not pd.api.types.is_numeric_dtype(values):
        codes, sides = pd.factorize(values)[0] + 1, 1
        others = np.bincount(codes)[codes] - 1
        values = pd.Series((np.bincount(codes, liked)[codes] - liked) / np.maximum(others, 1)).mask(others == 0)
    known = values.notna().to_numpy()
    n, n_liked = int(known.sum()), int(liked[known].sum())
    if n_liked in (0, n):
        return 0.5, 1.0
    ranks = rankdata(values.to_numpy(np.float64)[known])
    area = (ranks[liked[known]].sum() - n_liked * (n_liked + 1) / 2) / (n_liked * (n - n_liked))
    area = max(area, 1 - area) if sides == 2 else max(area, 0.5)
    spread = np.sqrt((n + 1) / (12 * n_liked * (n - n_liked)))
    return float(area), float(min(1.0, sides * norm.sf((area - 0.5) / spread)))
