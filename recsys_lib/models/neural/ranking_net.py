"""The net that ranks, and the examples it learns from: histories cut at a random place."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_lib.data.interactions import Interactions, row_starts
from recsys_lib.models.neural.serving import HALF_LIVES
from recsys_lib.models.neural.training import Dropout


@dataclass(frozen=True)
class RankingBatch:
    """Some people, each at one moment; tensors on the device.

    ``items``, ``codes``, ``steps`` (E,) are the events before the moment, flat, ``starts`` (B,) where each person's
    begin; ``context`` (B, c); ``seen`` and ``targets`` are pairs (row, column) of index tensors, ``weights`` belongs
    to the targets.
    """

    items: Tensor
    codes: Tensor
    steps: Tensor
    starts: Tensor
    context: Tensor
    seen: tuple[Tensor, Tensor]
    targets: tuple[Tensor, Tensor]
    weights: Tensor


class RankingNet(nn.Module):
    """A person is the pooled embeddings of their history; a film's score is a dot product with it.

    Parameters
    ----------
    features : ndarray, (n_items, f) float32
        Side features of the films.
    popularity : ndarray, (n_items,)
        Number of interactions; the bias of a film starts at the log of it.
    levels : ndarray, (n_levels,)
        The distinct ratings, ascending.
    context
        Width of the context (length, demographics, month).
    """

    def __init__(
        self,
        features: np.ndarray,
        popularity: np.ndarray,
        levels: np.ndarray,
        *,
        context: int,
        dim: int,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        n_items, n_features = features.shape
        self.heads = heads
        self.register_buffer("features", torch.from_numpy(np.ascontiguousarray(features)))
        self.item_in = nn.Parameter(torch.randn(n_items, dim) * 0.05)
        self.item_out = nn.Parameter(torch.randn(n_items, dim) * 0.05)
        self.side_in = nn.Parameter(torch.randn(n_features, dim) * 0.05)
        self.side_out = nn.Parameter(torch.randn(n_features, dim) * 0.05)
        bias = np.log(popularity + 1.0)
        self.item_bias = nn.Parameter(torch.from_numpy((bias - bias.mean()).astype(np.float32)))
        start = 0.3 + 0.7 * (levels - levels.min()) / max(float(np.ptp(levels)), 1e-9) if len(levels) > 1 else [1.0]
        self.strength = nn.Parameter(torch.tensor(np.asarray(start), dtype=torch.float32)[:, None].repeat(1, heads))
        half_lives = [HALF_LIVES[head % len(HALF_LIVES)] for head in range(heads)]
        self.log_decay = nn.Parameter(torch.tensor([math.log(1 / half_life) for half_life in half_lives]))
        self.norm = nn.LayerNorm(heads * dim)
        self.first = nn.Linear(heads * dim + context, hidden)
        self.second = nn.Linear(hidden, dim)
        self.skip = nn.Linear(heads * dim + context, dim)
        self.dropout = Dropout(dropout)

    def item_embeddings(self) -> tuple[Tensor, Tensor]:
        """Embeddings of all items: as part of a history, and to be ranked, (n_items, dim) each."""
        return self.item_in + self.features @ self.side_in, self.item_out + self.features @ self.side_out

    def forward(self, batch: RankingBatch) -> Tensor:
        """Scores of the whole catalogue, (B, n_items)."""
        items, candidates = self.item_embeddings()
        weights = self.strength[batch.codes] * torch.exp2(-batch.steps[:, None] * self.log_decay.exp())  # (E, heads)
        return self.user_vectors(batch, items, weights) @ candidates.T + self.item_bias

    def user_vectors(self, batch: RankingBatch, items: Tensor, weights: Tensor) -> Tensor:
        """Vectors of the users, (B, dim)."""
        people = len(batch.starts)
        ends = torch.cat([batch.starts[1:], batch.starts.new_tensor([len(batch.items)])])
        row = torch.repeat_interleave(torch.arange(people, device=batch.items.device), ends - batch.starts)
        squares = torch.zeros(people, self.heads, device=items.device).index_add(0, row, weights.square())
        pooled = [
            functional.embedding_bag(batch.items, items, batch.starts, mode="sum", per_sample_weights=weights[:, head])
            for head in range(self.heads)
        ]
        pooled = torch.stack(pooled, dim=1) / torch.sqrt(squares + 0.5)[:, :, None]  # (B, heads, dim)
        inside = torch.cat([self.norm(pooled.flatten(1)), batch.context], dim=1)
        inside = self.dropout(inside)
        return self.second(self.dropout(functional.gelu(self.first(inside)))) + self.skip(inside)

    def groups(self, weight_decay: float) -> list[dict]:
        """Parameter groups: decay on the embeddings alone."""
        names = ("item_in", "item_out", "side_in", "side_out")
        embeddings = [getattr(self, name) for name in names]
        chosen = {id(parameter) for parameter in embeddings}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in chosen]
        return [{"params": embeddings, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def ranking_loss(net: nn.Module, batch: RankingBatch) -> Tensor:
    """Cross-entropy of the targets under a softmax over all films not yet seen, weighted mean."""
    logits = net(batch).float()
    logits = logits.index_put(batch.seen, logits.new_tensor(-torch.inf))
    log_chance = logits[batch.targets] - torch.logsumexp(logits, dim=1)[batch.targets[0]]
    return -(batch.weights * log_chance).sum() / batch.weights.sum()


class Prefixes:
    """Examples made anew each epoch: a history cut at a random place, and what came next.

    Parameters
    ----------
    train
        The interactions; without timestamps the order is a new random one every epoch.
    codes : ndarray, (nnz,)
        Which of the distinct ratings each entry has.
    weights : ndarray, (nnz,)
        Weight of each entry as a target.
    context
        ``(people, lengths, last) -> (B, c) float32``: the context of people with so many events up to that time.
    """

    def __init__(self, train, codes, weights, context, *, batch_size, window, drop, demographics, device) -> None:
        self.train: Interactions = train
        self.codes, self.weights, self.context = codes, weights, context
        self.batch_size, self.window, self.drop, self.demographics = batch_size, window, drop, demographics
        self.device = device
        sizes = np.diff(train.matrix.indptr)
        self.people = np.flatnonzero(sizes >= 2)
        self.steps = max(1, math.ceil(len(self.people) / batch_size))

    def __call__(self, rng: np.random.Generator) -> Iterator[RankingBatch]:
        """Batches of one epoch."""
        train, sizes = self.train, np.diff(self.train.matrix.indptr)
        rows = train.row_of_entry
        when = np.zeros(len(rows)) if train.timestamps is None else train.timestamps
        order = np.lexsort((rng.random(len(rows)), when, rows))
        least = np.minimum(np.maximum(3, np.ceil(0.15 * sizes)), np.maximum(sizes - 1, 1)).astype(np.int64)
        cuts = least + np.floor(rng.random(len(sizes)) * np.maximum(sizes - least, 1)).astype(np.int64)
        people = rng.permutation(self.people)
        for start in range(0, len(people), self.batch_size):
            yield self._batch(people[start : start + self.batch_size], order, cuts, rng)

    def _batch(self, people: np.ndarray, order: np.ndarray, cuts: np.ndarray, rng: np.random.Generator) -> RankingBatch:
        """Gather the events of some people and divide them at their cuts."""
        indptr, columns = self.train.matrix.indptr.astype(np.int64), self.train.matrix.indices
        sizes, cut = np.diff(indptr)[people], cuts[people]
        begin = np.concatenate([[0], np.cumsum(sizes)])
        row = np.repeat(np.arange(len(people)), sizes)
        place = np.arange(begin[-1]) - begin[row]
        entry = order[indptr[people][row] + place]
        before = place < cut[row]
        ahead = np.maximum(5, np.ceil(self.window * cut)).astype(np.int64)
        target = ~before & (place < (cut + ahead)[row])
        kept = before & (rng.random(len(row)) >= self.drop)
        steps = (cut[row] - 1 - place) if self.train.timestamps is not None else np.zeros(len(row))
        last = None
        if self.train.timestamps is not None:
            last = self.train.timestamps[order[indptr[people] + cut - 1]]
        known = rng.random(len(people)) >= self.demographics
        starts = row_starts(row[kept], len(people))[:-1]
        return RankingBatch(
            items=self._tensor(columns[entry[kept]], np.int64),
            codes=self._tensor(self.codes[entry[kept]], np.int64),
            steps=self._tensor(steps[kept], np.float32),
            starts=self._tensor(starts, np.int64),
            context=self._tensor(self.context(np.where(known, people, -1), cut, last), np.float32),
            seen=(self._tensor(row[before], np.int64), self._tensor(columns[entry[before]], np.int64)),
            targets=(self._tensor(row[target], np.int64), self._tensor(columns[entry[target]], np.int64)),
            weights=self._tensor(self.weights[entry[target]], np.float32),
        )

    def _tensor(self, values: np.ndarray, dtype: type) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype)).to(self.device)
