"""The transformer of :class:`.causal.CausalTransformer` and the batches that it learns from, in torch."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys_lib.models.neural.causal import CausalTransformer
from recsys_lib.models.neural.nets import Dropout


class Block(nn.Module):
    """Attention to the places before, then a net of each place's own; both are added to what was there."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, dim) in and out; place t depends on places 0 to t alone."""
        query, key, value = self.qkv(self.before(x)).split(x.shape[-1], dim=-1)
        x = x + self.dropout(self.out(functional.scaled_dot_product_attention(query, key, value, is_causal=True)))
        return x + self.dropout(self.down(self.dropout(functional.gelu(self.up(self.between(x))))))


class CausalNet(nn.Module):
    """Blocks over the items of a history; items have one embedding, as input and to be ranked."""

    def __init__(self, model: CausalTransformer) -> None:
        super().__init__()
        dim, self.temperature = model.embedding_dim, model.temperature
        self.items = nn.Parameter(torch.randn(model.train.n_items, dim) * 0.02)
        self.positions = nn.Parameter(torch.randn(model.max_length, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, model.dropout) for _ in range(model.blocks))
        self.last, self.dropout = nn.LayerNorm(dim), Dropout(model.dropout)

    def forward(self, items: Tensor) -> Tensor:
        """Predict the next item at each place: vectors of length 1, (B, L, dim)."""
        x = self.dropout(self.candidates(items) * math.sqrt(self.items.shape[1]) + self.positions[: items.shape[1]])
        for block in self.blocks:
            x = block(x)
        return functional.normalize(self.last(x), dim=-1)

    def candidates(self, items: Tensor) -> Tensor:
        """Embeddings of length 1, (..., dim)."""
        return functional.normalize(self.items[items], dim=-1)


def next_item_loss(net: CausalNet, batch: tuple[Tensor, ...]) -> Tensor:
    """Cross-entropy of the next items under a softmax over them and the others drawn, which stand for all; weighted."""
    items, real, targets, weights, others = batch  # (B, L), (B, L), (P,), (P,), (C,); P places are real
    vectors = net(items)[real] / net.temperature  # (P, dim)
    own = (vectors * net.candidates(targets)).sum(dim=1)
    logits = (vectors @ net.candidates(others).T).float() + math.log(len(net.items) / len(others))  # (P, C)
    logits = logits.masked_fill(targets[:, None] == others, -torch.inf)
    return (weights * functional.softplus(logits.logsumexp(dim=1) - own)).sum() / weights.sum()


class Windows:
    """Histories in their order, those longer than is read cut to a stretch drawn by chance, batched by length.

    Equal times come in a new random order in every epoch.
    """

    def __init__(self, model: CausalTransformer, device: torch.device) -> None:
        self.model, self.device, sizes = model, device, np.diff(model.train.matrix.indptr)
        self.users = np.flatnonzero(sizes >= 2)
        self.sizes = sizes[self.users]
        self.lengths = np.minimum(self.sizes - 1, model.max_length)  # places that have a next item
        self.steps = math.ceil(self.lengths.sum() / model.batch_size)

    def __call__(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, ...]]:
        """Batches of one epoch."""
        train, lengths = self.model.train, self.lengths
        order = np.lexsort((rng.random(train.matrix.nnz), train.timestamps, train.row_of_entry))
        items = train.matrix.indices[order].astype(np.int64)
        liked = train.matrix.data[order] >= train.relevant_from
        weights = np.where(liked, 1, self.model.low_weight).astype(np.float32)
        starts = train.matrix.indptr[self.users] + rng.integers(self.sizes - lengths)
        alike = np.lexsort((rng.random(len(lengths)), lengths))
        batch = np.cumsum(lengths[alike]) * self.steps // (lengths.sum() + 1)
        for number in rng.permutation(np.unique(batch)):
            chosen = alike[batch == number]
            place = np.arange(lengths[chosen].max())
            real = place < lengths[chosen, None]  # (B, L)
            entry = starts[chosen, None] + place * real
            then = entry[real] + 1
            others = rng.choice(train.n_items, min(self.model.negatives, train.n_items), replace=False)
            parts = items[entry], real, items[then], weights[then], others
            yield tuple(torch.from_numpy(part).to(self.device) for part in parts)
