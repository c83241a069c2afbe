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

from recsys_lib.models.neural.training import Dropout, hide

TABLES = ("user_id", "item_id", "seen", "felt", "raters", "judged")
PARTS = {  # what can be left out to see what it is worth, and the parameters that are then zero for good
    "ids": ("user_id", "item_id", "user_bias", "item_bias"),
    "history": ("seen", "felt", "raters", "judged"),
    "side features": ("user_map", "item_map"),
    "perceptron": ("last.weight", "last.bias"),
}


def _sums(table: Tensor, places: Tensor, starts: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum of the rows ``table[places[starts[r]:starts[r + 1]]]`` for each r, (rows, dim), each times its weight."""
    options = {"mode": "sum", "include_last_offset": True}
    return functional.embedding_bag(places, table, starts, per_sample_weights=weights, **options)


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
        return _sums(table, self.columns, self.starts, self.gaps if weighted else None)


@dataclass(frozen=True)
class _Codes:
    """Whose the rows of a batch are, (B,), and which rows are whose: ``order[starts[c]:starts[c + 1]]`` are c's."""

    codes: Tensor
    order: Tensor
    starts: Tensor

    @classmethod
    def of(cls, codes: Tensor, size: int) -> _Codes:
        """From codes below ``size``."""
        starts = functional.pad(torch.bincount(codes, minlength=size).cumsum(0), (1, 0))
        return cls(codes, torch.argsort(codes, stable=True), starts)

    def gathered(self, gradient: Tensor, weights: Tensor | None = None) -> Tensor:
        """Sum of the rows of a gradient, (B, dim), over those of each code; several times faster than ``index_add``."""
        weights = None if weights is None else weights.index_select(0, self.order)
        return _sums(gradient, self.order, self.starts, weights)


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


class _Vectors(torch.autograd.Function):
    """Vectors of one side of each pair, (B, dim): side features and, where known, ID and history without the pair.

    ``traits`` are the side features' vectors of all, ``known`` is 1 or 0 for each pair. One embedding for "rated it"
    plus one weighted by how; the way back sums the transpose.
    """

    @staticmethod
    def forward(
        ctx: Any,
        traits: Tensor,
        ids: Tensor,
        seen: Tensor,
        felt: Tensor,
        side: _Side,
        mine: _Codes,
        others: _Codes,
        gaps: Tensor,
        known: Tensor,
    ) -> Tensor:
        seen, felt = seen.detach(), felt.detach()
        near, liked = seen.index_select(0, others.codes), felt.index_select(0, others.codes)
        own = near.addcmul_(gaps[:, None], liked)
        total = side.lists.total(seen, False).add_(side.lists.total(felt, True))
        total = torch.addcmul(ids, total, side.scale)
        scale = side.scale.index_select(0, mine.codes)
        vectors = total.index_select(0, mine.codes).addcmul_(own, scale, value=-1)
        ctx.kept = side, mine, others, gaps, known, -known * scale[:, 0]
        return torch.addcmul(traits.index_select(0, mine.codes), known[:, None], vectors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        side, mine, others, gaps, known, taken_out = ctx.kept
        ids = mine.gathered(gradient, known)
        total = ids * side.scale
        seen = side.transposed.total(total, False).add_(others.gathered(gradient, taken_out))
        felt = side.transposed.total(total, True).add_(others.gathered(gradient, taken_out * gaps))
        return mine.gathered(gradient), ids, seen, felt, None, None, None, None, None


class _Pair(torch.autograd.Function):
    """What the perceptron is given, [u, v, u * v, dense] (B, 3 dim + f), and <u, v>, (B,).

    u and v are multiplied with their masks of dropout first, and u * v with ``product``. In one piece, because each of
    these steps alone takes as long for memory as for its sums.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, v: Tensor, dense: Tensor, mask_u: Tensor, mask_v: Tensor, product: Tensor
    ) -> tuple[Tensor, Tensor]:
        dim = u.shape[1]
        x = u.new_empty(len(u), 3 * dim + dense.shape[1])
        first, second, both, rest = x.split((dim, dim, dim, dense.shape[1]), dim=1)
        torch.mul(u, mask_u, out=first)
        torch.mul(v, mask_v, out=second)
        torch.mul(first, second, out=both).mul_(product)
        rest.copy_(dense)
        ctx.save_for_backward(x, mask_u, mask_v, product)
        ctx.dim = dim
        return x, both.sum(dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_likeness: Tensor) -> tuple[Tensor | None, ...]:
        x, mask_u, mask_v, product = ctx.saved_tensors
        dim = ctx.dim
        first, second, both = (gradient[:, start : start + dim] for start in (0, dim, 2 * dim))
        both = (both + of_likeness[:, None]).mul_(product)
        u = torch.addcmul(first, both, x[:, dim : 2 * dim]).mul_(mask_u)
        v = torch.addcmul(second, both, x[:, :dim]).mul_(mask_v)
        return u, v, gradient[:, 3 * dim :] if ctx.needs_input_grad[2] else None, None, None, None


class _Gate(torch.autograd.Function):
    """SiLU of what dropout keeps, 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, kept)
        return hide(functional.silu(x), kept)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, kept = ctx.saved_tensors
        return hide(torch.ops.aten.silu_backward(gradient, x), kept), None


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

    def encode(self, batch: RatingBatch, known_user: Tensor, known_item: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of both sides, (B, dim): side features and, where known (B,), IDs and histories without the pair."""
        people, films = (self.user_id, self.seen, self.felt), (self.item_id, self.raters, self.judged)
        users, items = _Codes.of(batch.users, len(self.user_id)), _Codes.of(batch.items, len(self.item_id))
        who, what = self.user_side @ self.user_map, self.item_side @ self.item_map
        u = _Vectors.apply(who, *people, self.sums.people, users, items, batch.user_gaps, known_user)
        v = _Vectors.apply(what, *films, self.sums.films, items, users, batch.item_gaps, known_item)
        return u, v

    def forward(self, batch: RatingBatch) -> Tensor:
        """Predicted ratings minus the mean, (B,)."""
        dense = batch.dense
        known_user, known_item = self._known(len(dense), dense), self._known(len(dense), dense)
        u, v = self.encode(batch, known_user, known_item)
        bias = known_user * self.user_bias.index_select(0, batch.users)
        bias = bias + known_item * self.item_bias.index_select(0, batch.items)
        both = (known_user * known_item)[:, None]
        first, second, _ = self.blocks
        parts = [dense[:, :first] * known_user[:, None], dense[:, first : first + second] * known_item[:, None]]
        dense = torch.cat([*parts, dense[:, first + second :] * both], dim=1)
        return self.head(u, v, dense) + bias

    def head(self, u: Tensor, v: Tensor, dense: Tensor) -> Tensor:
        """From vectors and dense features to the score, biases left out, (B,)."""
        x, likeness = _Pair.apply(u, v, dense, self.vector_dropout.mask(u), self.vector_dropout.mask(v), self.product)
        scale = 1.0  # of what dropout left of x; a layer's weights are fewer than the values that it is given
        for number, layer in enumerate(self.layers):
            x = functional.linear(x, layer.weight * scale, layer.bias)
            x = self.norms[number](x) if self.norms is not None else x
            x, scale = _Gate.apply(x, self.dropout.kept(x)), self.dropout.scale
        last = functional.linear(x, self.last.weight * scale, self.last.bias)[:, 0]
        return self.linear(dense)[:, 0] + likeness + last

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
