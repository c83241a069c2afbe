"""The net that predicts ratings: both sides are their histories, without the pair that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional

from recsys_lib.models.neural.training import Dropout

TABLES = ("user_id", "item_id", "seen", "felt", "raters", "judged")
PARTS = {  # what can be left out to see what it is worth, and the parameters that are then zero for good
    "ids": ("user_id", "item_id", "user_bias", "item_bias"),
    "history": ("seen", "felt", "raters", "judged"),
    "side features": ("user_map", "item_map"),
    "perceptron": ("last.weight", "last.bias"),
}


@dataclass(frozen=True)
class _Lists:
    """A sparse matrix of gaps as lists: row r holds ``columns[starts[r]:starts[r + 1]]`` and the ``gaps`` there."""

    columns: Tensor
    starts: Tensor
    gaps: Tensor

    @classmethod
    def of(cls, matrix: csr_matrix, device: torch.device) -> _Lists:
        """From scipy's matrix."""
        parts = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64), matrix.data.astype(np.float32)
        return cls(*(torch.from_numpy(part).to(device) for part in parts))

    def total(self, table: Tensor, weighted: bool) -> Tensor:
        """Sum of the rows of ``table`` in each list, (rows, dim); each times its gap if ``weighted``."""
        gaps = self.gaps if weighted else None
        return functional.embedding_bag(
            self.columns, table, self.starts, mode="sum", per_sample_weights=gaps, include_last_offset=True
        )


@dataclass(frozen=True)
class _Side:
    """Histories of one side, their transpose, and 1 / sqrt(count) of each, (n, 1); the count without a pair, plus 1."""

    lists: _Lists
    transposed: _Lists
    scale: Tensor

    @classmethod
    def of(cls, matrix: csr_matrix, device: torch.device) -> _Side:
        """From the gaps of one side, as the rows of scipy's matrix."""
        counts = np.maximum(np.diff(matrix.indptr), 1).astype(np.float32)
        scale = torch.from_numpy(1 / np.sqrt(counts)[:, None]).to(device)
        return cls(_Lists.of(matrix, device), _Lists.of(matrix.T.tocsr(), device), scale)


@dataclass(frozen=True)
class Sums:
    """Who rated what and how: people's films with the ratings minus the films' means, and films' people likewise."""

    people: _Side
    films: _Side

    @classmethod
    def of(cls, matrix: csr_matrix, user_gaps: np.ndarray, item_gaps: np.ndarray, device: torch.device) -> Sums:
        """From the training matrix and the gaps of its entries, seen from either side."""
        felt, judged = (
            csr_matrix((gaps, matrix.indices, matrix.indptr), shape=matrix.shape) for gaps in (user_gaps, item_gaps)
        )
        return cls(_Side.of(felt, device), _Side.of(judged.T.tocsr(), device))


class _History(torch.autograd.Function):
    """Vectors of one side of each pair, (B, dim): its ID, and the sums over its history without the pair itself.

    One embedding for "rated it" plus one weighted by how; the way back sums the transpose.
    """

    @staticmethod
    def forward(
        ctx: Any, ids: Tensor, seen: Tensor, felt: Tensor, side: _Side, rows: Tensor, others: Tensor, gaps: Tensor
    ) -> Tensor:
        gaps, scale = gaps[:, None], side.scale.index_select(0, rows)
        ctx.kept = side, rows, others, gaps, scale
        seen, felt = seen.detach(), felt.detach()
        own = felt.index_select(0, others).mul_(gaps).add_(seen.index_select(0, others)).mul_(scale)
        total = side.lists.total(seen, False).add_(side.lists.total(felt, True)).mul_(side.scale).add_(ids)
        return total.index_select(0, rows).sub_(own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        side, rows, others, gaps, scale = ctx.kept
        ids = gradient.new_zeros(len(side.scale), gradient.shape[1]).index_add_(0, rows, gradient)
        total, gradient = ids * side.scale, gradient * scale
        seen = side.transposed.total(total, False).index_add_(0, others, gradient, alpha=-1)
        felt = side.transposed.total(total, True).index_add_(0, others, gradient.mul_(gaps), alpha=-1)
        return ids, seen, felt, None, None, None, None


class _Rows(torch.autograd.Function):
    """``table[rows]``, several times faster on a CPU, there and back, than torch's own indexing."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.rows, ctx.shape = rows, table.shape
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.new_zeros(ctx.shape).index_add_(0, ctx.rows, gradient), None


_rows = _Rows.apply


@dataclass(frozen=True)
class RatingBatch:
    """Training pairs: codes (B,), own gaps (B,) from either side, dense features (B, f), target (B,) minus the mean."""

    users: Tensor
    items: Tensor
    user_gaps: Tensor
    item_gaps: Tensor
    dense: Tensor
    target: Tensor


class RatingNet(nn.Module):
    """score = linear(dense) + biases + <u, v> + MLP[u, v, u * v, dense].

    u is a person's ID embedding, their side features, and two sums over their history, of one embedding a film for
    "rated it" and one weighted by how they rated it; v the same of a film.
    """

    def __init__(
        self,
        user_side: np.ndarray,
        item_side: np.ndarray,
        sums: Sums,
        blocks: tuple[int, int, int],
        *,
        dim: int,
        hidden: tuple[int, ...],
        dropout: float,
        vector_dropout: float,
        cold: float,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        (n_users, user_width), (n_items, item_width) = user_side.shape, item_side.shape
        self.sums, self.blocks, self.cold = sums, blocks, cold
        self.register_buffer("user_side", torch.from_numpy(np.ascontiguousarray(user_side)))
        self.register_buffer("item_side", torch.from_numpy(np.ascontiguousarray(item_side)))
        for name in TABLES:
            size = n_users if name in ("user_id", "raters", "judged") else n_items
            setattr(self, name, nn.Parameter(torch.randn(size, dim) * 0.05))
        self.user_map = nn.Parameter(torch.randn(user_width, dim) * 0.02)
        self.item_map = nn.Parameter(torch.randn(item_width, dim) * 0.02)
        self.user_bias = nn.Parameter(torch.zeros(n_users))
        self.item_bias = nn.Parameter(torch.zeros(n_items))
        self.linear = nn.Linear(sum(blocks), 1)
        widths = (3 * dim + sum(blocks), *hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in hidden) if batch_norm else None
        self.last = nn.Linear(widths[-1], 1)
        self.register_buffer("product", torch.ones(1))
        self.dropout, self.vector_dropout = Dropout(dropout), Dropout(vector_dropout)

    @torch.no_grad()
    def leave_out(self, part: str) -> None:
        """Silence a part for good: one of :data:`PARTS`, or "product" (of the two vectors)."""
        if part == "product":
            self.product.zero_()
            return
        for name in PARTS[part]:
            self.get_parameter(name).zero_().requires_grad_(False)

    def encode(self, batch: RatingBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Vectors of both sides, (B, dim): from IDs and histories without the pair itself, then from side features."""
        sums, users, items = self.sums, batch.users, batch.items
        who = _rows(self.user_side @ self.user_map, users)
        what = _rows(self.item_side @ self.item_map, items)
        if not self.seen.requires_grad and not self.seen.any():
            return _rows(self.user_id, users), _rows(self.item_id, items), who, what
        people, films = (self.user_id, self.seen, self.felt), (self.item_id, self.raters, self.judged)
        person = _History.apply(*people, sums.people, users, items, batch.user_gaps)
        film = _History.apply(*films, sums.films, items, users, batch.item_gaps)
        return person, film, who, what

    def forward(self, batch: RatingBatch) -> Tensor:
        """Predicted ratings minus the mean, (B,)."""
        users, items, dense = batch.users, batch.items, batch.dense
        person, film, who, what = self.encode(batch)
        known_user, known_item = self._known(len(users), dense), self._known(len(users), dense)
        u = who + known_user[:, None] * person
        v = what + known_item[:, None] * film
        bias = known_user * _rows(self.user_bias, users) + known_item * _rows(self.item_bias, items)
        both = (known_user * known_item)[:, None]
        first, second, _ = self.blocks
        parts = [dense[:, :first] * known_user[:, None], dense[:, first : first + second] * known_item[:, None]]
        dense = torch.cat([*parts, dense[:, first + second :] * both], dim=1)
        return self.head(self.vector_dropout(u), self.vector_dropout(v), dense) + bias

    def head(self, u: Tensor, v: Tensor, dense: Tensor) -> Tensor:
        """From vectors and dense features to the score, biases left out, (B,)."""
        product = u * v * self.product
        x = torch.cat([u, v, product], dim=1)
        for number, layer in enumerate(self.layers):
            x = layer(x) if number else self._first(x, dense)
            x = self.norms[number](x) if self.norms is not None else x
            x = self.dropout(functional.silu(x))
        return self.linear(dense)[:, 0] + product.sum(dim=1) + self.last(x)[:, 0]

    def _first(self, x: Tensor, dense: Tensor) -> Tensor:
        """The first layer on [x, dense]; apart, because nothing flows back into the dense features."""
        layer, width = self.layers[0], x.shape[1]
        of_vectors, of_dense = layer.weight[:, :width].contiguous(), layer.weight[:, width:].contiguous()
        return functional.linear(x, of_vectors, layer.bias) + functional.linear(dense, of_dense)

    def _known(self, size: int, like: Tensor) -> Tensor:
        """1 where a side is seen as known, 0 where training plays the newcomer, (B,)."""
        if not self.training or not self.cold:
            return torch.ones(size, device=like.device)
        return (torch.rand(size, device=like.device) >= self.cold).float()

    def groups(self, decay: float) -> list[dict]:
        """Parameter groups: strong decay on the embeddings."""
        tables = [getattr(self, name) for name in (*TABLES, "user_bias", "item_bias")]
        chosen = {id(parameter) for parameter in tables}
        tables = [parameter for parameter in tables if parameter.requires_grad]
        rest = [each for each in self.parameters() if id(each) not in chosen and each.requires_grad]
        return [{"params": tables, "weight_decay": decay}, {"params": rest, "weight_decay": 0.01}]


def squared_loss(net: nn.Module, batch: RatingBatch) -> Tensor:
    """Mean squared error, stars squared."""
    return (net(batch) - batch.target).square().mean()


class Pairs:
    """Training pairs in a new random order every epoch, gathered a batch at a time."""

    def __init__(self, columns: dict[str, np.ndarray], batch_size: int, device: torch.device) -> None:
        self.columns = {
            name: torch.from_numpy(np.ascontiguousarray(value)).to(device) for name, value in columns.items()
        }
        self.size = len(self.columns["users"])
        self.batch_size = batch_size
        self.steps = max(1, -(-self.size // batch_size))

    def __call__(self, rng: np.random.Generator) -> Iterator[RatingBatch]:
        """Batches of one epoch."""
        order = torch.from_numpy(rng.permutation(self.size)).to(self.columns["users"].device)
        for chosen in torch.tensor_split(order, self.steps):
            yield RatingBatch(**{name: value.index_select(0, chosen) for name, value in self.columns.items()})
