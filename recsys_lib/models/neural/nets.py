"""Both nets and the batches that they learn from: one predicts ratings, the other ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from torch.nn import functional

from recsys_lib.data.interactions import places_in_rows, row_starts, with_values
from recsys_lib.models.neural.hybrid import PARTS, NeuralHybrid
from recsys_lib.models.neural.serving import HALF_LIVES

if TYPE_CHECKING:
    from recsys_lib.models.neural.ranker import NeuralRanker

MAX_ENTRIES, ENTRIES_PER_PAIR = 2**18, 128  # of histories, that a step sums over on either side; ml-100k has fewer


class Dropout(nn.Module):
    """Dropout whose masks numpy draws on the CPU, several times faster than torch's; torch draws them elsewhere.

    The mask follows from torch's generator, so a seed still fixes everything.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Hide a share of the values and scale the others up, while training."""
        if not self.training or not self.share:
            return x
        scale = 1 / (1 - self.share)
        if x.device.type != "cpu":
            return x * ((torch.rand(x.shape, device=x.device) >= self.share) * scale)
        bits = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw(-(-x.numel() // 4)).view(np.uint16)
        kept = (bits[: x.numel()] >= round(self.share * 65_536)).reshape(x.shape)
        return x * torch.from_numpy(np.multiply(kept, np.float32(scale), dtype=np.float32))


def _tensor(values: np.ndarray, dtype: type | None = None, device: torch.device | None = None) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype)).to(device)


def _embedding(rows: int, dim: int, spread: float = 0.05) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, dim) * spread)


def groups(net: nn.Module, names: tuple[str, ...], decay: float, others: float = 0.0) -> list[dict]:
    """Parameter groups for AdamW: weight decay ``decay`` on the parameters of these names, ``others`` on the rest."""
    free = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for name, parameter in free if name in names], "weight_decay": decay},
        {"params": [parameter for name, parameter in free if name not in names], "weight_decay": others},
    ]


# ---- ratings -----------------------------------------------------------------------------------------------------


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
        return cls(*(_tensor(part, dtype, device) for part, dtype in parts))

    def total(self, mine: Tensor, others: Tensor, own_gaps: Tensor, rated: Tensor, weighted: Tensor) -> Tensor:
        """Sum of ``rated`` and of ``weighted`` times the gap over histories without the pairs themselves, (B, dim).

        Where the histories of a batch have more than ``MAX_ENTRIES`` together, and ``ENTRIES_PER_PAIR`` a pair, the
        longer ones give some, evenly spaced from a random start, and their sum is scaled up.
        """
        rows, place = torch.unique(mine, return_inverse=True)  # a batch holds most users several times
        length = self.starts[rows + 1] - self.starts[rows]  # (R,)
        most = max(MAX_ENTRIES, ENTRIES_PER_PAIR * len(mine))
        windowed = int(length.sum()) > most
        size = length.clamp(max=most // len(rows)) if windowed else length
        offsets = size.cumsum(0) - size
        row = torch.repeat_interleave(size)  # (E,), as step, entry and columns
        step = torch.arange(len(row), device=row.device) - offsets[row]
        if windowed:
            start = torch.minimum((torch.rand(len(rows), device=row.device) * length).long(), length - 1)
            step = (step * length[row] + start[row]) // size[row]
        entry = self.starts[rows][row] + step
        columns = self.columns[entry]
        sums = functional.embedding_bag(columns, rated, offsets, mode="sum")
        gaps = self.gaps[entry]
        sums = sums + functional.embedding_bag(columns, weighted, offsets, mode="sum", per_sample_weights=gaps)
        keys, pairs = row * len(rated) + columns, place * len(rated) + others  # ascending, (E,); (B,)
        taken = keys[torch.searchsorted(keys, pairs).clamp(max=len(keys) - 1)] == pairs  # (B,)
        own = taken[:, None] * (rated[others] + own_gaps[:, None] * weighted[others])
        return (sums[place] - own) * (length / size)[place][:, None]  # each entry is taken with chance size / length


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

    u is a user's ID embedding, their side features, and two sums over their history, of one embedding an item for
    "rated it" and one weighted by how they rated it; v the same of an item.
    """

    def __init__(self, model: NeuralHybrid, device: torch.device) -> None:
        super().__init__()
        known, catalogue, dim, hidden = model.features, model.catalogue, model.embedding_dim, model.hidden
        by_user, by_item = (with_values(known.matrix, side.gaps) for side in (known.users, known.items))
        self.histories = Lists.of(by_user, device), Lists.of(by_item.T.tocsr(), device)
        self.blocks, self.cold = known.blocks(), model.history_dropout
        self.register_buffer("user_side", _tensor(catalogue.user_content))
        self.register_buffer("item_side", _tensor(catalogue.item_content))
        (n_users, user_width), (n_items, item_width) = self.user_side.shape, self.item_side.shape
        self.user_id, self.item_id = _embedding(n_users, dim), _embedding(n_items, dim)
        self.seen, self.weighted = _embedding(n_items, dim), _embedding(n_items, dim)
        self.raters, self.judged = _embedding(n_users, dim), _embedding(n_users, dim)
        self.user_map, self.item_map = _embedding(user_width, dim, 0.02), _embedding(item_width, dim, 0.02)
        self.user_bias, self.item_bias = nn.Parameter(torch.zeros(n_users)), nn.Parameter(torch.zeros(n_items))
        self.linear = nn.Linear(sum(self.blocks), 1)
        widths = (3 * dim + sum(self.blocks), *hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if model.batch_norm else nn.Identity() for width in hidden)
        self.last = nn.Linear(widths[-1], 1)
        self.register_buffer("product", torch.ones(1))
        self.dropout, self.vector_dropout = Dropout(model.dropout), Dropout(model.vector_dropout)
        for name in (name for part in model.without for name in PARTS.get(part, ())):
            self.state_dict(keep_vars=True)[name].requires_grad_(False).zero_()

    def encode(self, batch: RatingBatch, known_user: Tensor, known_item: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors of both sides, (B, dim): side features and, where known (B,), IDs and histories without the pair."""
        users, items = batch.users, batch.items
        of_users, of_items = self.histories
        rated = of_users.total(users, items, batch.user_gaps, self.seen, self.weighted)
        raters = of_items.total(items, users, batch.item_gaps, self.raters, self.judged)
        u = self.user_id[users] + rated * of_users.scale[users]
        v = self.item_id[items] + raters * of_items.scale[items]
        u = self.user_side[users] @ self.user_map + known_user[:, None] * u
        return u, self.item_side[items] @ self.item_map + known_item[:, None] * v

    def forward(self, batch: RatingBatch) -> Tensor:
        """Predicted ratings minus the mean, (B,)."""
        known_user, known_item = self._known(batch.dense), self._known(batch.dense)  # (B,)
        u, v = self.encode(batch, known_user, known_item)  # (B, dim)
        bias = known_user * self.user_bias.index_select(0, batch.users)
        bias = bias + known_item * self.item_bias.index_select(0, batch.items)
        user, item, pair = batch.dense.split(self.blocks, dim=1)
        both = known_user * known_item
        dense = torch.cat([user * known_user[:, None], item * known_item[:, None], pair * both[:, None]], dim=1)
        return self.head(u, v, dense) + bias

    def head(self, u: Tensor, v: Tensor, dense: Tensor) -> Tensor:
        """From vectors and dense features to the score, biases left out, (B,)."""
        u, v = self.vector_dropout(u), self.vector_dropout(v)
        product = u * v * self.product  # (B, dim)
        x = torch.cat([u, v, product, dense], dim=1)  # (B, 3 dim + f)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.dropout(functional.silu(norm(layer(x))))
        return self.linear(dense)[:, 0] + product.sum(dim=1) + self.last(x)[:, 0]

    def _known(self, dense: Tensor) -> Tensor:
        """1 where a side is seen as known, 0 where training plays a new one, (B,)."""
        if not self.training or not self.cold:
            return torch.ones(len(dense), device=dense.device)
        return (torch.rand(len(dense), device=dense.device) >= self.cold).float()


def squared_loss(net: nn.Module, batch: RatingBatch) -> Tensor:
    """Mean squared error, stars squared."""
    return (net(batch) - batch.target).square().mean()


class Pairs:
    """Training pairs in a new random order every epoch, gathered a batch at a time."""

    def __init__(self, columns: dict[str, np.ndarray], batch_size: int, device: torch.device) -> None:
        self.columns = {name: _tensor(value, device=device) for name, value in columns.items()}
        self.size = len(columns["users"])
        self.steps = max(1, -(-self.size // batch_size))

    def __call__(self, rng: np.random.Generator) -> Iterator[RatingBatch]:
        """Batches of one epoch."""
        order = torch.from_numpy(rng.permutation(self.size)).to(self.columns["users"].device)
        for chosen in torch.tensor_split(order, self.steps):
            yield RatingBatch(**{name: value.index_select(0, chosen) for name, value in self.columns.items()})


# ---- ranking -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RankingBatch:
    """Some users, each at one moment.

    ``items``, ``codes``, ``steps`` (E,) are the events before the moment, flat, ``starts`` (B,) where each user's
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
    """A user is the pooled embeddings of their history; an item's score is a dot product with it."""

    def __init__(self, model: NeuralRanker, content: np.ndarray) -> None:
        super().__init__()
        dim, heads, levels = model.embedding_dim, model.heads, model.levels_
        context = 1 + len(model.months_) + model.demographics_.shape[1]
        self.heads = heads
        self.register_buffer("features", _tensor(content))
        n_items, n_features = self.features.shape
        self.item_in, self.item_out = _embedding(n_items, dim), _embedding(n_items, dim)
        self.side_in, self.side_out = _embedding(n_features, dim), _embedding(n_features, dim)
        bias = np.log(model.train.matrix.getnnz(axis=0) + 1.0)  # an item starts as likely as it is popular
        self.item_bias = nn.Parameter(_tensor(bias - bias.mean(), np.float32))
        start = 0.3 + 0.7 * (levels - levels.min()) / max(float(np.ptp(levels)), 1e-9) if len(levels) > 1 else [1.0]
        self.strength = nn.Parameter(_tensor(start, np.float32)[:, None].repeat(1, heads))
        half_lives = [HALF_LIVES[head % len(HALF_LIVES)] for head in range(heads)]
        self.log_decay = nn.Parameter(torch.tensor([math.log(1 / half_life) for half_life in half_lives]))
        self.norm = nn.LayerNorm(heads * dim)
        self.first = nn.Linear(heads * dim + context, model.hidden)
        self.second = nn.Linear(model.hidden, dim)
        self.skip = nn.Linear(heads * dim + context, dim)
        self.dropout = Dropout(model.dropout)

    def item_embeddings(self) -> tuple[Tensor, Tensor]:
        """Embeddings of all items: as part of a history, and to be ranked, (n_items, dim) each."""
        return self.item_in + self.features @ self.side_in, self.item_out + self.features @ self.side_out

    def forward(self, batch: RankingBatch) -> Tensor:
        """Scores of the whole catalogue, (B, n_items)."""
        items, candidates = self.item_embeddings()
        weights = self.strength[batch.codes] * torch.exp2(-batch.steps[:, None] * self.log_decay.exp())  # (E, heads)
        users, device = len(batch.starts), batch.items.device
        ends = torch.cat([batch.starts[1:], batch.starts.new_tensor([len(batch.items)])])
        row = torch.repeat_interleave(torch.arange(users, device=device), ends - batch.starts)  # (E,)
        squares = torch.zeros(users, self.heads, device=device).index_add(0, row, weights.square())  # (B, heads)
        pooled = [
            functional.embedding_bag(batch.items, items, batch.starts, mode="sum", per_sample_weights=weights[:, head])
            for head in range(self.heads)
        ]
        pooled = torch.stack(pooled, dim=1) / torch.sqrt(squares + 0.5)[:, :, None]  # (B, heads, dim)
        inside = self.dropout(torch.cat([self.norm(pooled.flatten(1)), batch.context], dim=1))  # (B, heads * dim + c)
        vectors = self.second(self.dropout(functional.gelu(self.first(inside)))) + self.skip(inside)  # (B, dim)
        return vectors @ candidates.T + self.item_bias


def ranking_loss(net: nn.Module, batch: RankingBatch) -> Tensor:
    """Cross-entropy of the targets under a softmax over all items not yet seen, weighted mean."""
    logits = net(batch).float()  # (B, n_items)
    logits = logits.index_put(batch.seen, logits.new_tensor(-torch.inf))
    log_chance = logits[batch.targets] - torch.logsumexp(logits, dim=1)[batch.targets[0]]
    return -(batch.weights * log_chance).sum() / batch.weights.sum()


class Prefixes:
    """Examples made anew each epoch: a history cut at a random place, and what came next.

    Without timestamps the order is a new random one every epoch.
    """

    def __init__(self, model: NeuralRanker, device: torch.device) -> None:
        self.model, self.device = model, device
        ratings = model.train.matrix.data
        self.codes = model.rating_codes(ratings)
        self.weights = np.where(ratings >= model.relevant_from, 1.0, model.low_weight)
        self.users = np.flatnonzero(np.diff(model.train.matrix.indptr) >= 2)
        self.steps = math.ceil(len(self.users) / model.batch_size)

    def __call__(self, rng: np.random.Generator) -> Iterator[RankingBatch]:
        """Batches of one epoch."""
        train, size = self.model.train, self.model.batch_size
        rows, sizes = train.row_of_entry, np.diff(train.matrix.indptr)
        when = np.zeros(len(rows)) if train.timestamps is None else train.timestamps
        order = np.lexsort((rng.random(len(rows)), when, rows))
        least = np.minimum(np.maximum(3, np.ceil(0.15 * sizes)), np.maximum(sizes - 1, 1)).astype(np.int64)
        cuts = least + np.floor(rng.random(len(sizes)) * np.maximum(sizes - least, 1)).astype(np.int64)
        users = rng.permutation(self.users)
        for start in range(0, len(users), size):
            yield self._batch(users[start : start + size], order, cuts, rng)

    def _batch(self, users: np.ndarray, order: np.ndarray, cuts: np.ndarray, rng: np.random.Generator) -> RankingBatch:
        """Gather the events of some users and divide them at their cuts."""
        model, timestamps = self.model, self.model.train.timestamps
        indptr, columns = model.train.matrix.indptr, model.train.matrix.indices
        starts, sizes, cut = indptr[users].astype(np.int64), np.diff(indptr)[users], cuts[users]  # (B,)
        row = np.repeat(np.arange(len(users)), sizes)  # (N,), as all below that is no user's
        place = places_in_rows(row, np.arange(len(row)), len(users))
        entry = order[starts[row] + place]
        before = place < cut[row]
        ahead = np.maximum(5, np.ceil(model.window * cut)).astype(np.int64)
        target = ~before & (place < (cut + ahead)[row])
        kept = before & (rng.random(len(row)) >= model.event_dropout)
        steps = np.zeros(len(row)) if timestamps is None else cut[row] - 1 - place
        last = None if timestamps is None else timestamps[order[starts + cut - 1]]
        shown = np.where(rng.random(len(users)) >= model.context_dropout, users, -1)

        def tensor(values: np.ndarray, dtype: type = np.int64) -> Tensor:
            return _tensor(values, dtype, self.device)

        return RankingBatch(
            items=tensor(columns[entry[kept]]),
            codes=tensor(self.codes[entry[kept]]),
            steps=tensor(steps[kept], np.float32),
            starts=tensor(row_starts(row[kept], len(users))[:-1]),
            context=tensor(model.context(shown, cut, last), np.float32),
            seen=(tensor(row[before]), tensor(columns[entry[before]])),
            targets=(tensor(row[target]), tensor(columns[entry[target]])),
            weights=tensor(self.weights[entry[target]], np.float32),
        )
