"""Bayesian matrix factorisation whose users and items start from what they have rated: an ensemble partner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix
from tqdm.auto import tqdm

from recsys_lib.data.interactions import Histories, Interactions, codes_of
from recsys_lib.models.base import Recommender
from recsys_lib.models.features.pairs import Catalogue, PairFeatures


class BayesianFactors(Recommender):
    """Predict ratings by averaging many factorisations, drawn from what the data leaves possible.

    rating = linear(dense features) + p . q, where the features are the neural hybrid's (leave-one-out) and p, q are
    drawn by Gibbs sampling. The mean of a user's p depends on *which* items they rated, that of an item's q on who
    rated it: the implicit feedback of SVD++ as a prior. Salakhutdinov and Mnih, "Bayesian probabilistic matrix
    factorization using MCMC" (2008); Simm et al., "Macau: scalable Bayesian factorization with high-dimensional side
    information" (2017); Rendle, Zhang and Koren, "On the difficulty of evaluating baselines" (2019).

    Parameters
    ----------
    n_factors
        Width of p and q; two more of them are the biases of users and of items.
    sweeps, burn_in, kept
        Rounds of sampling, how many of them are thrown away first, and how many of the rest (evenly spaced) are
        averaged.
    link
        Prior precision of the link from "who rated what" to the factors; larger trusts it less.
    seed
        Of the draws.
    """

    predicts_ratings = True

    def __init__(
        self,
        n_factors: int = 16,
        sweeps: int = 150,
        burn_in: int = 20,
        kept: int = 50,
        link: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.sweeps = sweeps
        self.burn_in = burn_in
        self.kept = kept
        self.link = link
        self.seed = seed

    # ---- sampling --------------------------------------------------------------------------------------------

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if np.ptp(train.matrix.data) == 0:
            raise ValueError("BayesianFactors predicts ratings, and these are all alike")
        self.catalogue = Catalogue.of(train, items, users)
        self.features = PairFeatures(train, self.catalogue)
        training = self.features.training()
        self.linear_ = _ridge(training["dense"], training["target"])
        rest = training["target"] - _with_one(training["dense"]) @ self.linear_
        draws = self._sample(rest.astype(np.float64))
        chosen = np.unique(np.linspace(0, len(draws) - 1, min(self.kept, len(draws))).astype(int))
        for name in draws[0]:
            setattr(self, f"{name}_", np.stack([draws[i][name] for i in chosen]).astype(np.float32))

    def _sample(self, rest: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Gibbs sampling; the draws after the burn-in."""
        rng, matrix = np.random.default_rng(self.seed), self.features.matrix
        filled = csr_matrix((rest, matrix.indices, matrix.indptr), shape=matrix.shape)
        people, films = (
            _Half(filled, self.n_factors, self.link, 0),
            _Half(filled.T.tocsr(), self.n_factors, self.link, 1),
        )
        noise, draws = 1 / rest.var(), []
        people.start(rng)
        films.start(rng)
        for sweep in tqdm(range(self.sweeps), desc="BayesianFactors", leave=False, disable=None):
            people.draw(films.factors, noise, rng)
            films.draw(people.factors, noise, rng)
            fitted = _pair_products(people.factors, films.factors, people.rows, matrix.indices)
            noise = rng.gamma(1 + len(rest) / 2, 1 / (1 + 0.5 * np.square(rest - fitted).sum()))
            if sweep >= self.burn_in:
                draws.append(
                    {
                        "people": people.factors,
                        "films": films.factors,
                        "link_": people.link_to,
                        "centre": people.centre,
                        "precision": people.precision,
                        "noise": np.array(noise),
                    }
                )
        return draws

    # ---- serving ---------------------------------------------------------------------------------------------

    def _dense_part(self, dense: np.ndarray) -> np.ndarray:
        return _with_one(dense) @ self.linear_

    def predict(self, user_ids: Any, item_ids: Any, timestamps: Any = None) -> np.ndarray:
        """Predict the rating of each pair, on the data's own scale, (n,) float64; as ``NeuralHybrid.predict``."""
        users, items = codes_of(user_ids, self.catalogue.user_ids), codes_of(item_ids, self.catalogue.item_ids)
        if len(users) == 0:
            return np.zeros(0)
        when = None if timestamps is None else np.asarray(timestamps, np.int64)
        total = np.zeros(len(users))
        known = (users >= 0), (items >= 0)
        for people, films in zip(self.people_, self.films_, strict=True):
            p = np.where(known[0][:, None], people[users], _neutral(people.shape[1], 0))
            q = np.where(known[1][:, None], films[items], _neutral(films.shape[1], 1))
            total += np.einsum("nk,nk->n", p, q)
        ratings, dense = self.train.matrix.data, self.features.pairs(users, items, when)
        predicted = self.features.mean + self._dense_part(dense) + total / len(self.people_)
        return np.clip(predicted, ratings.min(), ratings.max())

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        known = self.features
        matrix, side = known.widened(histories)
        grid = known.grid(matrix, side)
        weights, ends = self.linear_, np.cumsum(known.blocks())
        scores = (grid.user @ weights[: ends[0]])[:, None] + grid.item @ weights[ends[0] : ends[1]] + weights[-1]
        for number, values in enumerate(grid.pair):
            scores = scores + values * weights[ends[1] + number]
        codes = np.full(matrix.shape[0], -1) if users is None else codes_of(users, self.catalogue.user_ids)
        average = np.zeros_like(scores)
        for draw in range(len(self.people_)):
            factors = self.people_[draw][codes]
            new = codes < 0
            if new.any():
                factors[new] = self._factors_of(draw, matrix[new], side.gaps[new[side.rows]])
            average += factors @ self.films_[draw][known.columns].T
        return known.mean + scores + average / len(self.people_)

    def _factors_of(self, draw: int, matrix: csr_matrix, gaps: np.ndarray) -> np.ndarray:
        """Mean factors of new users under one draw, from what they rated and how, (n, width)."""
        half = _Half(
            csr_matrix((gaps, matrix.indices, matrix.indptr), shape=matrix.shape), self.n_factors, self.link, 0
        )
        half.centre, half.precision = self.centre_[draw], self.precision_[draw]
        half.link_to = self.link__[draw]
        half.factors = np.tile(_neutral(self.n_factors + 2, 0), (matrix.shape[0], 1))
        precisions, means = half.conditional(self.films_[draw].astype(np.float64), float(self.noise_[draw]))
        half.factors[:, half.free] = np.linalg.solve(precisions, means[:, :, None])[:, :, 0]
        return half.factors

    # ---- on disk ---------------------------------------------------------------------------------------------

    def _learnt(self) -> dict[str, Any]:
        return {**super()._learnt(), "catalogue": vars(self.catalogue)}

    def _restore(self, learnt: dict[str, Any]) -> None:
        self.catalogue = Catalogue(**learnt.pop("catalogue"))
        super()._restore(learnt)
        self.features = PairFeatures(self.train, self.catalogue)


class _Half:
    """The factors of one side (0: users, 1: items), and all that is drawn with them.

    Factors have two columns more than ``n_factors``: people's are [p, bias, 1], films' [q, 1, bias], so that one
    product holds all. ``free`` are the columns that are drawn.
    """

    def __init__(self, rest: csr_matrix, n_factors: int, link: float, side: int) -> None:
        self.rest, self.side, self.link = rest, side, link
        self.width = n_factors + 2
        self.free = np.delete(np.arange(self.width), n_factors + 1 - side)
        self.rows = np.repeat(np.arange(rest.shape[0]), np.diff(rest.indptr))
        counts = np.maximum(np.diff(rest.indptr), 1)
        self.ones = csr_matrix((np.ones(rest.nnz), rest.indices, rest.indptr), shape=rest.shape)
        scaled = (1 / np.sqrt(counts))[self.rows]
        self.history = csr_matrix((scaled, rest.indices, rest.indptr), shape=rest.shape)

    def start(self, rng: np.random.Generator) -> None:
        """Small random factors, and the parts of the link that never change."""
        self.factors = rng.normal(scale=0.1, size=(self.rest.shape[0], self.width))
        self.factors[:, self.width - 1 - self.side] = 1.0
        gram = (self.history.T @ self.history).toarray()
        gram[np.diag_indices_from(gram)] += self.link
        self.solver = cho_factor(gram, overwrite_a=True)
        size = len(self.free)
        self.link_to = np.zeros((self.rest.shape[1], size))
        self.centre, self.precision = np.zeros(size), 10 * np.eye(size)

    def draw(self, others: np.ndarray, noise: float, rng: np.random.Generator) -> None:
        """Draw centre, spread and link given the factors, then the factors given everything else."""
        self._draw_prior(rng)
        precisions, means = self.conditional(others, noise)
        lower = np.linalg.cholesky(precisions)
        mean = np.linalg.solve(precisions, means[:, :, None])[:, :, 0]
        shaken = rng.normal(size=mean.shape)
        self.factors = self.factors.copy()
        self.factors[:, self.free] = mean + np.linalg.solve(lower.swapaxes(1, 2), shaken[:, :, None])[:, :, 0]

    def conditional(self, others: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
        """Precision matrices, (n, free, free), and precision-weighted means, (n, free), of the factors."""
        seen, fixed = others[:, self.free], self.width - 1 - self.side
        size = len(self.free)
        outer = (seen[:, :, None] * seen[:, None, :]).reshape(len(seen), -1)
        precisions = self.precision + noise * (self.ones @ outer).reshape(-1, size, size)
        known = self.ones @ (seen * others[:, [fixed]])  # what the other side's bias explains already
        prior = (self.centre + self.history @ self.link_to) @ self.precision
        return precisions, prior + noise * (self.rest @ seen - known)

    def _draw_prior(self, rng: np.random.Generator) -> None:
        """Normal-Wishart draw of centre and precision around the linked means, then the link itself."""
        linked = self.history @ self.link_to
        rest, size = self.factors[:, self.free] - linked, len(self.free)
        n, mean = len(rest), rest.mean(axis=0)
        scatter = (rest - mean).T @ (rest - mean) + 2.0 * np.outer(mean, mean) * n / (n + 2.0) + np.eye(size)
        scatter += self.link * self.link_to.T @ self.link_to
        root = np.linalg.cholesky(np.linalg.inv(scatter))
        self.precision = root @ _wishart(size, n + size + self.rest.shape[1], rng) @ root.T
        spread = np.linalg.cholesky(np.linalg.inv(self.precision))
        self.centre = n * mean / (n + 2.0) + spread @ rng.normal(size=size) / np.sqrt(n + 2.0)
        shaken = self.factors[:, self.free] - self.centre + rng.normal(size=(n, size)) @ spread.T
        wanted = self.history.T @ shaken + np.sqrt(self.link) * rng.normal(size=self.link_to.shape) @ spread.T
        self.link_to = cho_solve(self.solver, wanted, overwrite_b=True)


def _wishart(size: int, freedom: float, rng: np.random.Generator) -> np.ndarray:
    """A draw of the standard Wishart distribution (Bartlett's decomposition), (size, size)."""
    lower = np.tril(rng.normal(size=(size, size)), -1)
    lower[np.diag_indices(size)] = np.sqrt(rng.chisquare(freedom - np.arange(size)))
    return lower @ lower.T


def _neutral(width: int, side: int) -> np.ndarray:
    """Factors of a user or item of whom nothing is known: zeros, and the 1 that lets the other side's bias through."""
    neutral = np.zeros(width)
    neutral[width - 1 - side] = 1.0
    return neutral


def _with_one(dense: np.ndarray) -> np.ndarray:
    return np.concatenate([dense, np.ones((len(dense), 1), dense.dtype)], axis=1)


def _ridge(dense: np.ndarray, target: np.ndarray, penalty: float = 10.0) -> np.ndarray:
    """Weights of the dense features and, last, the constant, (f + 1,) float64."""
    x = _with_one(dense.astype(np.float64))
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += penalty
    return np.linalg.solve(gram, x.T @ target)


def _pair_products(left: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Products of the factors of each pair, (n,), a block at a time."""
    blocks: Iterator[slice] = (slice(start, start + 200_000) for start in range(0, len(rows), 200_000))
    return np.concatenate([np.einsum("nk,nk->n", left[rows[b]], right[columns[b]]) for b in blocks])
