"""Bayesian matrix factorisation in which users and items start from what they have rated: an ensemble partner."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix
from tqdm.auto import tqdm

from recsys_lib.data.interactions import Histories, Interactions, codes_of
from recsys_lib.models.base import Recommender
from recsys_lib.models.features.pairs import Catalogue, PairFeatures

PENALTY = 10.0  # of the linear part


class BayesianFactors(Recommender):
    """Predict ratings by averaging many factorisations, drawn from the posterior by Gibbs sampling.

    rating = linear(dense features) + p . q, where the features are the neural hybrid's (leave-one-out). The prior mean
    of a user's p depends on *which* items they rated, that of an item's q on who rated it: the implicit feedback of
    SVD++ as a prior. Salakhutdinov and Mnih, "Bayesian probabilistic matrix factorization using MCMC" (2008); Simm et
    al., "Macau: scalable Bayesian factorization with high-dimensional side information" (2017); Rendle, Zhang and
    Koren, "On the difficulty of evaluating baselines" (2019).

    Parameters
    ----------
    n_factors
        Width of p and q; two more columns hold the biases of users and of items.
    sweeps, burn_in, kept
        Rounds of sampling, how many of them are discarded first, and how many of the rest (evenly spaced) are averaged.
    link
        Prior precision of the link from "who rated what" to the factors.
    """

    predicts_ratings = True

    def __init__(
        self, n_factors: int = 16, sweeps: int = 150, burn_in: int = 20, kept: int = 50, link: float = 0.5, seed=0
    ) -> None:
        self.n_factors, self.sweeps, self.burn_in, self.kept = n_factors, sweeps, burn_in, kept
        self.link, self.seed = link, seed

    def _fit(self, train: Interactions, items: pd.DataFrame | None, users: pd.DataFrame | None) -> None:
        if np.ptp(train.matrix.data) == 0:
            raise ValueError("BayesianFactors predicts ratings, and these are all alike")
        self.catalogue_ = vars(Catalogue.of(train, items, users))
        training = self.features.training()
        dense, target = _with_constant(training["dense"].astype(np.float64)), training["target"]
        gram = dense.T @ dense
        gram[np.diag_indices_from(gram)] += PENALTY
        self.linear_ = np.linalg.solve(gram, dense.T @ target)
        draws = self._sample((target - _with_constant(training["dense"]) @ self.linear_).astype(np.float64))
        chosen = np.unique(np.linspace(0, len(draws) - 1, min(self.kept, len(draws))).astype(int))
        for name in draws[0]:
            setattr(self, name, np.stack([draws[i][name] for i in chosen]).astype(np.float32))

    @cached_property
    def catalogue(self) -> Catalogue:
        """All users and items that have factors, and their content."""
        return Catalogue(**self.catalogue_)

    @cached_property
    def features(self) -> PairFeatures:
        """The dense features of pairs, fitted on :attr:`train`."""
        return PairFeatures(self.train, self.catalogue)

    def _sample(self, residuals: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Draw from the posterior; what is drawn after the burn-in, by the attribute that keeps it."""
        rng, matrix = np.random.default_rng(self.seed), self.features.matrix
        filled = csr_matrix((residuals, matrix.indices, matrix.indptr), shape=matrix.shape)
        users = _Side(filled, self.n_factors, self.link, 0)
        items = _Side(filled.T.tocsr(), self.n_factors, self.link, 1)
        noise, draws = 1 / residuals.var(), []  # a precision
        users.start(rng)
        items.start(rng)
        for sweep in tqdm(range(self.sweeps), desc="BayesianFactors", leave=False, disable=None):
            users.draw(items.factors, noise, rng)
            items.draw(users.factors, noise, rng)
            fitted = np.einsum("nk,nk->n", users.factors[users.rows], items.factors[matrix.indices])
            noise = rng.gamma(1 + len(residuals) / 2, 1 / (1 + 0.5 * np.square(residuals - fitted).sum()))
            if sweep >= self.burn_in:
                draw = {"user_factors_": users.factors, "item_factors_": items.factors, "noise_": np.array(noise)}
                draws.append(draw | {"centre_": users.centre, "precision_": users.precision, "link_": users.mapping})
        return draws

    def predict(self, user_ids: Any, item_ids: Any, timestamps: Any = None) -> np.ndarray:
        """Predict the rating of each pair, on the data's own scale, (n,) float64; as ``NeuralHybrid.predict``."""
        users, items = codes_of(user_ids, self.catalogue.user_ids), codes_of(item_ids, self.catalogue.item_ids)
        when = None if timestamps is None else np.asarray(timestamps, np.int64)
        total = np.zeros(len(users))
        for p, q in zip(self.user_factors_, self.item_factors_, strict=True):  # code -1, unknown, is the row at the end
            p, q = np.vstack([p, _neutral(self.n_factors, 0)]), np.vstack([q, _neutral(self.n_factors, 1)])
            total += np.einsum("nk,nk->n", p[users], q[items])
        ratings, dense = self.train.matrix.data, self.features.pairs(users, items, when)
        predicted = self.features.mean + _with_constant(dense) @ self.linear_ + total / len(self.user_factors_)
        return np.clip(predicted, ratings.min(), ratings.max())

    def _score(self, histories: Histories, users: np.ndarray | None) -> np.ndarray:
        known = self.features
        matrix, side = known.widened(histories)
        user, item, pair = known.grid(matrix, side)
        weights, ends = self.linear_, np.cumsum(known.blocks())
        scores = (user @ weights[: ends[0]])[:, None] + item @ weights[ends[0] : ends[1]] + weights[-1]
        for number, values in enumerate(pair):
            scores = scores + values * weights[ends[1] + number]
        codes = np.full(matrix.shape[0], -1) if users is None else codes_of(users, self.catalogue.user_ids)
        new = codes < 0
        average = np.zeros_like(scores)
        for draw, user_factors in enumerate(self.user_factors_):
            factors = user_factors[codes]
            if new.any():
                factors[new] = self._factors_of(draw, matrix[new], side.gaps[new[side.rows]])
            average += factors @ self.item_factors_[draw][known.columns].T
        return known.mean + scores + average / len(self.user_factors_)

    def _factors_of(self, draw: int, matrix: csr_matrix, gaps: np.ndarray) -> np.ndarray:
        """Mean factors of new users under one draw, from what they rated and how, (n, width)."""
        filled = csr_matrix((gaps, matrix.indices, matrix.indptr), shape=matrix.shape)
        side = _Side(filled, self.n_factors, self.link, 0)
        side.centre, side.precision, side.mapping = self.centre_[draw], self.precision_[draw], self.link_[draw]
        factors = np.tile(_neutral(self.n_factors, 0), (matrix.shape[0], 1))
        precisions, means = side.conditional(self.item_factors_[draw].astype(np.float64), float(self.noise_[draw]))
        factors[:, side.free] = np.linalg.solve(precisions, means[:, :, None])[:, :, 0]
        return factors


class _Side:
    """The factors of one side (0: users, 1: items), and all that is drawn with them.

    Users' factors are [p, bias, 1], items' [q, 1, bias], so that one product holds all; ``free`` are the columns drawn.
    """

    def __init__(self, residuals: csr_matrix, n_factors: int, link: float, side: int) -> None:
        self.residuals, self.link, self.fixed = residuals, link, n_factors + 1 - side
        self.neutral = _neutral(n_factors, side)
        self.free = np.delete(np.arange(n_factors + 2), self.fixed)
        counts = np.diff(residuals.indptr)
        self.rows = np.repeat(np.arange(len(counts)), counts)
        self.ones, self.history = (
            csr_matrix((values, residuals.indices, residuals.indptr), shape=residuals.shape)
            for values in (np.ones(residuals.nnz), (1 / np.sqrt(np.maximum(counts, 1)))[self.rows])
        )

    def start(self, rng: np.random.Generator) -> None:
        """Small random factors, and the parts of the link that never change."""
        self.factors = rng.normal(scale=0.1, size=(self.residuals.shape[0], len(self.neutral)))
        self.factors[:, self.fixed] = 1.0
        gram = (self.history.T @ self.history).toarray()
        gram[np.diag_indices_from(gram)] += self.link
        self.solver = cho_factor(gram, overwrite_a=True)
        size = len(self.free)
        self.mapping = np.zeros((self.residuals.shape[1], size))
        self.centre, self.precision = np.zeros(size), 10 * np.eye(size)

    def draw(self, others: np.ndarray, noise: float, rng: np.random.Generator) -> None:
        """Draw centre, precision and link given the factors, then the factors given everything else."""
        self._draw_prior(rng)
        precisions, means = self.conditional(others, noise)
        lower = np.linalg.cholesky(precisions)
        mean = np.linalg.solve(precisions, means[:, :, None])[:, :, 0]
        normal = rng.normal(size=mean.shape)
        self.factors = self.factors.copy()
        self.factors[:, self.free] = mean + np.linalg.solve(lower.swapaxes(1, 2), normal[:, :, None])[:, :, 0]

    def conditional(self, others: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
        """Precision matrices, (n, free, free), and precision-weighted means, (n, free), of the factors."""
        rated, size = others[:, self.free], len(self.free)
        outer = (rated[:, :, None] * rated[:, None, :]).reshape(len(rated), -1)
        precisions = self.precision + noise * (self.ones @ outer).reshape(-1, size, size)
        explained = self.ones @ (rated * others[:, [self.fixed]])  # by the other side's bias
        prior = (self.centre + self.history @ self.mapping) @ self.precision
        return precisions, prior + noise * (self.residuals @ rated - explained)

    def _draw_prior(self, rng: np.random.Generator) -> None:
        """Normal-Wishart draw of centre and precision around the linked means, then the link itself."""
        rest, size = self.factors[:, self.free] - self.history @ self.mapping, len(self.free)
        n, mean = len(rest), rest.mean(axis=0)
        scatter = (rest - mean).T @ (rest - mean) + 2.0 * np.outer(mean, mean) * n / (n + 2.0) + np.eye(size)
        scatter += self.link * self.mapping.T @ self.mapping
        root = np.linalg.cholesky(np.linalg.inv(scatter))
        lower = np.tril(rng.normal(size=(size, size)), -1)  # Bartlett's decomposition of a standard Wishart draw
        lower[np.diag_indices(size)] = np.sqrt(rng.chisquare(n + size + self.residuals.shape[1] - np.arange(size)))
        self.precision = root @ lower @ lower.T @ root.T
        spread = np.linalg.cholesky(np.linalg.inv(self.precision))
        self.centre = n * mean / (n + 2.0) + spread @ rng.normal(size=size) / np.sqrt(n + 2.0)
        target = self.factors[:, self.free] - self.centre + rng.normal(size=(n, size)) @ spread.T
        weighted = self.history.T @ target + np.sqrt(self.link) * rng.normal(size=self.mapping.shape) @ spread.T
        self.mapping = cho_solve(self.solver, weighted, overwrite_b=True)


def _neutral(n_factors: int, side: int) -> np.ndarray:
    """Factors of a user or item of whom nothing is known: zeros, and the 1 that lets the other side's bias through."""
    return np.eye(n_factors + 2)[n_factors + 1 - side]


def _with_constant(dense: np.ndarray) -> np.ndarray:
    return np.concatenate([dense, np.ones((len(dense), 1), dense.dtype)], axis=1)
