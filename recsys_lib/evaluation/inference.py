"""Statistics of means and their differences: intervals, paired tests, power. Resampling is over users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

BLOCK = 4_000_000  # random numbers held at once
LEAST_USERS = 100  # under this many, no winner is named
LEVEL = 0.95  # of all intervals
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


def _columns(values: np.ndarray) -> np.ndarray:
    """Values as float64 with a second axis."""
    values = np.asarray(values, np.float64)
    return values[:, None] if values.ndim == 1 else values


def _weights(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each user is drawn, (block, n) float64, in blocks of resamples."""
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def resampled_means(values: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Means of bootstrap samples of users, (resamples, n_columns) float64.

    NaN in ``values``, (n_users, n_columns) float: this user has no value in this column and is left out of its means.
    All columns are drawn together, so that means of differences stay paired. ValueError if there is nobody to resample.
    """
    values = _columns(values)
    if len(values) == 0:
        raise ValueError("there is nobody to resample: no user has a value")
    there = ~np.isnan(values)
    filled, whole = np.where(there, values, 0.0), bool(there.all())
    blocks = []
    for weights in _weights(len(values), resamples, seed):
        counts = float(len(values)) if whole else weights @ there
        with np.errstate(invalid="ignore"):
            blocks.append((weights @ filled) / counts)
    return np.concatenate(blocks)


def intervals(frame: pd.DataFrame, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean of each column (a row a user, NaN: no value) with its 95% percentile bootstrap interval over users.

    Returns mean, low, high and n_users, with the columns as index.

    Efron, Tibshirani: An Introduction to the Bootstrap, chapter 13, 1993.

    >>> intervals(pd.DataFrame({"ndcg@10": [0.5] * 20})).loc["ndcg@10"].tolist()
    [0.5, 0.5, 0.5, 20.0]
    """
    values = frame.to_numpy(np.float64)
    low, high = np.nanquantile(resampled_means(values, resamples=resamples, seed=seed), TAILS, axis=0)
    counted = (~np.isnan(values)).sum(axis=0)
    table = {"mean": np.nanmean(values, axis=0), "low": low, "high": high, "n_users": counted}
    return pd.DataFrame(table, index=frame.columns)


def ratios(values: pd.DataFrame, over: str, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Ratio of each column's mean to that of the column ``over``, with its 95% percentile bootstrap interval.

    ``values`` has a row a user, a column a model, no NaN; all columns are drawn together. Returns ratio, low and high,
    with the columns as index: NaN where no draw has anything in ``over``.

    >>> ratios(pd.DataFrame({"a": [0.2, 0.4], "b": [0.1, 0.2]}), "b").round(6).loc["a"].tolist()
    [2.0, 2.0, 2.0]
    """
    means = pd.DataFrame(resampled_means(values.to_numpy(), resamples=resamples, seed=seed), columns=values.columns)
    means = means[means[over] > 0]
    drawn, whole = means.div(means[over], axis=0), values.mean()
    low, high = (drawn.quantile(tail) for tail in TAILS)
    return pd.DataFrame({"ratio": whole / whole[over], "low": low, "high": high})


def permutation_p(differences: np.ndarray, *, permutations: int = 10_000, seed: int = 0) -> np.ndarray:
    """Two-sided p of "the mean difference is zero", by flipping the signs of users' differences at random.

    ``(1 + number of flips at least as far from zero as what was seen) / (permutations + 1)``

    ``differences``, (n_users,) or (n_users, n_columns) float, are paired, without NaN. Returns (n_columns,) float64.

    Smucker, Allan, Carterette: A comparison of statistical significance tests for IR evaluation, CIKM 2007.

    >>> permutation_p(np.array([1.0, -1.0, 0.0])).tolist()
    [1.0]
    """
    differences = _columns(differences)
    n = len(differences)
    seen = np.abs(differences.sum(axis=0))
    slack = 1e-9 * np.abs(differences).sum(axis=0)
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK // max(n, 1))
    beyond = np.zeros(differences.shape[1])
    for start in range(0, permutations, step):
        signs = rng.integers(0, 2, size=(min(step, permutations - start), n), dtype=np.int8) * 2.0 - 1.0
        beyond += (np.abs(signs @ differences) >= seen - slack).sum(axis=0)
    return (1 + beyond) / (permutations + 1)


def t_test_p(differences: np.ndarray) -> np.ndarray:
    """Two-sided p of the paired t test, (n_columns,) float64; 1 where all differences are zero.

    Student: The probable error of a mean, Biometrika 6(1), 1908.
    """
    differences = _columns(differences)
    if len(differences) < 2:
        return np.full(differences.shape[1], np.nan)
    spread = differences.std(axis=0, ddof=1) / np.sqrt(len(differences))
    mean = differences.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((spread == 0) & (mean == 0), 0.0, mean / spread)
    return 2 * stats.t.sf(np.abs(t), len(differences) - 1)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p values that keep the chance of any false finding under the level; NaN stays and is not counted.

    Holm: A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6(2), 1979.

    >>> [round(float(p), 3) for p in holm(np.array([0.01, 0.04, 0.03]))]
    [0.03, 0.06, 0.06]
    """
    p_values = np.asarray(p_values, np.float64)
    adjusted = np.full(p_values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def distinct(p_holm: pd.Series, n_users: int | pd.Series) -> pd.Series:
    """Which differences are distinct from chance: an adjusted p under the level, and users enough to name a winner."""
    return (p_holm < 1 - LEVEL) & (n_users >= LEAST_USERS)


def smallest_difference(differences: np.ndarray, *, level: float = 0.05) -> np.ndarray:
    """Smallest difference of means that this sample shows with 80% power, (n_columns,) float64.

    ``(z(1 - level / 2) + z(0.8)) * sd(differences) / sqrt(n)``; Cohen: Statistical Power Analysis for the Behavioral
    Sciences, 1988.
    """
    differences = _columns(differences)
    if len(differences) < 2:
        return np.full(differences.shape[1], np.nan)
    z = stats.norm.ppf(1 - level / 2) + stats.norm.ppf(0.8)
    return z * differences.std(axis=0, ddof=1) / np.sqrt(len(differences))


def paired_table(
    differences: np.ndarray, *, resamples: int = 1000, permutations: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Interval, tests, effect size and power of paired differences, a row a column.

    ``differences``, (n_users, n_columns) float, are without NaN. Columns of the table: difference, difference_low,
    difference_high, p_t, p_permutation, p_holm, effect_size, effect_low, effect_high, smallest_difference. The effect
    size is the mean difference over its standard deviation (Cohen's d of paired samples); its interval is from the same
    bootstrap. The smallest difference is the one that would be seen with 80% power at the first level of Holm's
    procedure, ``0.05 / n_columns``.
    """
    n, columns = differences.shape
    spread = differences.std(axis=0, ddof=1) if n > 1 else np.full(columns, np.nan)
    means = resampled_means(differences, resamples=resamples, seed=seed)
    squares = resampled_means(differences**2, resamples=resamples, seed=seed)
    spreads = np.sqrt(np.maximum(squares - means**2, 0) * n / max(n - 1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = np.where(spreads > 0, means / spreads, 0.0)
        effect = np.where(spread > 0, differences.mean(axis=0) / spread, 0.0)
    p = permutation_p(differences, permutations=permutations, seed=seed)
    low, high = np.quantile(means, TAILS, axis=0)
    effect_low, effect_high = np.quantile(effects, TAILS, axis=0)
    return pd.DataFrame(
        {
            "difference": differences.mean(axis=0),
            "difference_low": low,
            "difference_high": high,
            "p_t": t_test_p(differences),
            "p_permutation": p,
            "p_holm": holm(p),
            "effect_size": effect,
            "effect_low": effect_low,
            "effect_high": effect_high,
            "smallest_difference": smallest_difference(differences, level=(1 - LEVEL) / max(columns, 1)),
        }
    )


def seed_variance(values: np.ndarray) -> dict[str, float]:
    """Take apart how much of a mean's uncertainty comes from the seed, and how much from the users.

    ``values``, (n_users, n_seeds) float, are a metric of each user with each seed; NaN rows are left out. Returns mean;
    sd_seeds, standard deviation of the seeds' means; se_users, standard error of the mean over users (of their means
    over seeds); seeds, users.

    >>> parts = seed_variance(np.array([[0.0, 0.2], [0.4, 0.6]]))
    >>> round(parts["mean"], 3), round(parts["sd_seeds"], 3), round(parts["se_users"], 3)
    (0.3, 0.141, 0.2)
    """
    values = values[~np.isnan(values).any(axis=1)]
    of_users = values.mean(axis=1)
    return {
        "mean": float(values.mean()),
        "sd_seeds": float(values.mean(axis=0).std(ddof=1)),
        "se_users": float(of_users.std(ddof=1) / np.sqrt(len(of_users))),
        "seeds": values.shape[1],
        "users": len(values),
    }
