"""The net that predicts ratings: both sides are their histories, without the pair that is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from recsys_lib.models.neural.training import Dropout

TABLES = ("user_id", "item_id", "seen", "felt", "raters", "judged")
PARTS = {  # what can be left out to see what it is worth, and the parameters that are then zero for good
    "ids": ("user_id", "item_id", "user_bias", "item_bias"),
    "history": ("seen", "felt", "raters", "judged"),
    "side features": ("user_map", "item_map"),
    "perceptron": ("last.weight", "last.bias"),
}


class _Product(torch.autograd.Function):
    """Sparse times dense, with the transpose kept for the way back."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed @ gradient.contiguous(), None, None


def _torch_csr(matrix: csr_matrix, device: torch.device) -> Tensor:
    """Return a scipy matrix as torch's, float32, on the device."""
    parts = [torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices)]
    values = torch.from_numpy(matrix.data.astype(np.float32))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, values, matrix.shape, check_invariants=True).to(device)


@dataclass(frozen=True)
class Sums:
    """Matrices whose products with embeddings are sums over histories, each with its transpose.

    ``seen`` (n_users, n_items) holds ones, ``felt`` the ratings minus the films' means; ``raters`` and ``judged``
    (n_items, n_users) are the same of the films, with the ratings minus the people's means.
    """

    seen: tuple[Tensor, Tensor]
    felt: tuple[Tensor, Tensor]
    raters: tuple[Tensor, Tensor]
    judged: tuple[Tensor, Tensor]
    user_counts: Tensor
    item_counts: Tensor

    @classmethod
    def of(cls, matrix: csr_matrix, user_gaps: np.ndarray, item_gaps: np.ndarray, device: torch.device) -> Sums:
        """From the training matrix and the gaps of its entries, seen from either side."""

        def both(values: np.ndarray, turned: bool) -> tuple[Tensor, Tensor]:
            filled = csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)
            pair = _torch_csr(filled, device), _torch_csr(filled.T.tocsr(), device)
            return pair[::-1] if turned else pair

        ones = np.ones(matrix.nnz, np.float32)
        counts = [torch.from_numpy(matrix.getnnz(axis=axis).astype(np.float32)).to(device) for axis in (1, 0)]
        return cls(both(ones, False), both(user_gaps, False), both(ones, True), both(item_gaps, True), *counts)


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
        """Vectors of both sides from histories without the pair itself, (B, dim), then from IDs and side features."""
        sums, users, items = self.sums, batch.users, batch.items
        who = self.user_side[users] @ self.user_map
        what = self.item_side[items] @ self.item_map
        if not self.seen.requires_grad and not self.seen.any():
            return torch.zeros_like(who), torch.zeros_like(what), who, what
        seen, felt = _Product.apply(self.seen, *sums.seen), _Product.apply(self.felt, *sums.felt)
        raters, judged = _Product.apply(self.raters, *sums.raters), _Product.apply(self.judged, *sums.judged)
        person = seen[users] - self.seen[items] + felt[users] - batch.user_gaps[:, None] * self.felt[items]
        film = raters[items] - self.raters[users] + judged[items] - batch.item_gaps[:, None] * self.judged[users]
        person = person * torch.rsqrt(sums.user_counts[users])[:, None]  # the count without the pair, plus one
        film = film * torch.rsqrt(sums.item_counts[items])[:, None]
        return person, film, who, what

    def forward(self, batch: RatingBatch) -> Tensor:
        """Predicted ratings minus the mean, (B,)."""
        users, items, dense = batch.users, batch.items, batch.dense
        person, film, who, what = self.encode(batch)
        known_user, known_item = self._known(len(users), dense), self._known(len(users), dense)
        u = who + known_user[:, None] * (person + self.user_id[users])
        v = what + known_item[:, None] * (film + self.item_id[items])
        bias = known_user * self.user_bias[users] + known_item * self.item_bias[items]
        both = (known_user * known_item)[:, None]
        first, second, _ = self.blocks
        parts = [dense[:, :first] * known_user[:, None], dense[:, first : first + second] * known_item[:, None]]
        dense = torch.cat([*parts, dense[:, first + second :] * both], dim=1)
        return self.head(self.vector_dropout(u), self.vector_dropout(v), dense) + bias

    def head(self, u: Tensor, v: Tensor, dense: Tensor) -> Tensor:
        """From vectors and dense features to the score, biases left out, (B,)."""
        product = u * v * self.product
        x = torch.cat([u, v, product, dense], dim=1)
        for number, layer in enumerate(self.layers):
            x = layer(x)
            x = self.norms[number](x) if self.norms is not None else x
            x = self.dropout(nn.functional.silu(x))
        return self.linear(dense)[:, 0] + product.sum(dim=1) + self.last(x)[:, 0]

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
            yield RatingBatch(**{name: value[chosen] for name, value in self.columns.items()})
