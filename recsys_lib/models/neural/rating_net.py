"""The net that predicts ratings: both sides are their histories, without the pair that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional

from recsys_lib.models.neural.training import Dropout

TABLES = ("user_id", "item_id", "seen", "weighted", "raters", "judged")
PARTS = {  # what can be left out to see what it is worth, and the parameters that are then zero for good
    "ids": ("user_id", "item_id", "user_bias", "item_bias"),
    "history": ("seen", "weighted", "raters", "judged"),
    "side features": ("user_map", "item_map"),
    "perceptron": ("last.weight", "last.bias"),
}


@dataclass(frozen=True)
class Lists:
    """Histories of one side as lists: row r holds the codes ``columns[starts[r]:starts[r + 1]]`` and the gaps there.

    ``scale`` is 1 / sqrt(length), (n, 1): the length without the pair itself, plus 1.
    """

    columns: Tensor  # (nnz,)
    starts: Tensor  # (n + 1,)
    gaps: Tensor  # (nnz,)
    scale: Tensor  # (n, 1)

    @classmethod
    def of(cls, matrix: csr_matrix, device: torch.device) -> Lists:
        """From a sparse matrix of gaps."""
        scale = (1 / np.sqrt(np.maximum(np.diff(matrix.indptr), 1)))[:, None]
        parts = (matrix.indices, np.int64), (matrix.indptr, np.int64), (matrix.data, np.float32), (scale, np.float32)
        return cls(*(torch.from_numpy(np.ascontiguousarray(part, dtype)).to(device) for part, dtype in parts))

    def total(self, rows: Tensor, rated: Tensor, weighted: Tensor) -> Tensor:
        """Sum over each list of its rows of ``rated`` and of ``weighted`` times the gap, (len(rows), dim)."""
        begin, length = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        ends = length.cumsum(0)
        offsets = ends - length
        entry = torch.arange(int(ends[-1]), device=rows.device) + torch.repeat_interleave(begin - offsets, length)
        places = self.columns[entry]
        sums = functional.embedding_bag(places, rated, offsets, mode="sum")
        return sums + functional.embedding_bag(
            places, weighted, offsets, mode="sum", per_sample_weights=self.gaps[entry]
        )


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
        histories: tuple[Lists, Lists],
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
        self.histories, self.blocks, self.cold = histories, blocks, cold
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
        users, items = batch.users, batch.items
        of_users, of_items = self.histories
        u = self._from_history(of_users, users, items, batch.user_gaps, self.user_id, self.seen, self.weighted)
        v = self._from_history(of_items, items, users, batch.item_gaps, self.item_id, self.raters, self.judged)
        u = self.user_side[users] @ self.user_map + known_user[:, None] * u
        return u, self.item_side[items] @ self.item_map + known_item[:, None] * v

    @staticmethod
    def _from_history(
        lists: Lists, mine: Tensor, others: Tensor, gaps: Tensor, ids: Tensor, rated: Tensor, weighted: Tensor
    ) -> Tensor:
        """ID embeddings plus the normalised sums over the histories, the pair itself taken out, (B, dim)."""
        rows, place = torch.unique(mine, return_inverse=True)  # a batch holds most users several times
        own = rated[others] + gaps[:, None] * weighted[others]
        return ids[mine] + (lists.total(rows, rated, weighted)[place] - own) * lists.scale[mine]

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
        u, v = self.vector_dropout(u), self.vector_dropout(v)
        product = u * v * self.product  # (B, dim)
        x = torch.cat([u, v, product, dense], dim=1)  # (B, 3 dim + f)
        for number, layer in enumerate(self.layers):
            x = layer(x)
            x = self.norms[number](x) if self.norms is not None else x
            x = self.dropout(functional.silu(x))
        return self.linear(dense)[:, 0] + product.sum(dim=1) + self.last(x)[:, 0]

    def _known(self, size: int, like: Tensor) -> Tensor:
        """1 where a side is seen as known, 0 where training plays a new one, (B,)."""
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
