"""How fast the neural models train and serve: ``python -m recsys_lib.benchmarks.neural``.

The same hybrid learns from the same ratings three times: as the package does it, from tensors cut into batches with
sums over whole histories; with the same sums, but a ``DataLoader`` that fetches one row at a time; and plainly, as
tutorials have it, a ``DataLoader`` whose rows bring their own histories along, and the net in torch's own pieces. All
in one run, in turns, the fastest of three rounds each, and on a CPU by CPU seconds, so that the ratio depends little on
what else the machine does. Then: seconds of a whole fit, milliseconds to score all films for one person and to list
films for a newcomer, seconds for everybody, by either net, with numpy alone.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from recsys_lib import load_dataset, splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.files import write_json
from recsys_lib.models.neural.hybrid import NeuralHybrid, NeuralRanker
from recsys_lib.models.neural.knowledge import Catalogue, Knowledge
from recsys_lib.models.neural.rating_net import Pairs, RatingBatch, RatingNet, squared_loss
from recsys_lib.models.neural.side import item_features, user_features
from recsys_lib.models.neural.training import choose_device
from recsys_lib.paths import Paths

ROUNDS = 3  # in which all ways take their turn; the fastest counts


class Rows(Dataset):
    """One training pair at a time; with ``histories``, also what its person and its film have beside it."""

    def __init__(self, columns: dict[str, np.ndarray], histories: list[Any] | None = None) -> None:
        self.columns, self.histories = columns, histories

    def __len__(self) -> int:
        return len(self.columns["users"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        one = {name: torch.as_tensor(values[row]) for name, values in self.columns.items()}
        for side, (code, other) in enumerate((("users", "items"), ("items", "users")) if self.histories else ()):
            indptr, indices, gaps = self.histories[side]
            mine = slice(indptr[self.columns[code][row]], indptr[self.columns[code][row] + 1])
            kept = indices[mine] != self.columns[other][row]
            one[f"history{side}"] = torch.from_numpy(indices[mine][kept]), torch.from_numpy(gaps[mine][kept])
        return one


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the numbers of rows, string their histories together."""
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0] if not name.startswith("history")}
    for name in (name for name in rows[0] if name.startswith("history")):
        lengths = torch.tensor([len(row[name][0]) for row in rows])
        parts = [torch.cat([row[name][place] for row in rows]) for place in (0, 1)]
        batch[name] = (*parts, torch.cumsum(lengths, 0) - lengths)
    return batch


class PlainNet(RatingNet):
    """The same net as tutorials have it: each row's own histories, torch's own dropout, gradients by autograd alone."""

    def encode(
        self, batch: RatingBatch, known_user: torch.Tensor, known_item: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """As :meth:`RatingNet.encode`, over histories that the rows bring along without the pair itself."""
        vectors = []
        ids = self.user_id[batch.users], self.item_id[batch.items]
        traits = self.user_side[batch.users] @ self.user_map, self.item_side[batch.items] @ self.item_map
        for (indices, gaps, starts), seen, felt, known, own, trait in zip(
            self.brought,
            (self.seen, self.raters),
            (self.felt, self.judged),
            (known_user, known_item),
            ids,
            traits,
            strict=True,
        ):
            total = functional.embedding_bag(indices, seen, starts, mode="sum")
            total = total + functional.embedding_bag(indices, felt, starts, mode="sum", per_sample_weights=gaps)
            lengths = torch.diff(starts, append=starts.new_tensor([len(indices)]))
            total = total * torch.rsqrt(lengths + 1.0)[:, None]
            vectors.append(trait + known[:, None] * (total + own))
        return tuple(vectors)

    def head(self, u: torch.Tensor, v: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """As :meth:`RatingNet.head`."""
        u, v = self.vector_dropout(u), self.vector_dropout(v)
        product = u * v * self.product
        x = torch.cat([u, v, product, dense], dim=1)
        for layer in self.layers:
            x = self.dropout(functional.silu(layer(x)))
        return self.linear(dense)[:, 0] + product.sum(dim=1) + self.last(x)[:, 0]


def _steps(net: Any, batches: Any, seconds: float) -> float:
    """Training examples a second over about so many seconds, after a warm-up of two batches."""
    optimizer, seen, start = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True), 0, 0.0
    clock = time.perf_counter if net.product.device.type == "cuda" else time.process_time
    net.train()
    for number, batch in enumerate(batches):
        if number == 2:
            start, seen = clock(), 0
        optimizer.zero_grad(set_to_none=True)
        squared_loss(net, batch).backward()
        optimizer.step()
        seen += len(batch.users)
        if net.product.device.type == "cuda":
            torch.cuda.synchronize()
        if number > 2 and clock() - start > seconds:
            break
    return seen / (clock() - start)


def training_speed(known: Interactions, items: pd.DataFrame, users: pd.DataFrame, seconds: float, device: Any) -> dict:
    """Training examples a second of each way."""
    model = NeuralHybrid(device=str(device))
    model.train, model.catalogue = known, Catalogue.of(known, items, users)
    model.knowledge = Knowledge(known, model.catalogue)
    model.user_side_ = user_features(users, model.catalogue.user_ids)[0]
    model.item_side_ = item_features(items, model.catalogue.item_ids)[0]
    columns = model.knowledge.training()
    names = [field.name for field in fields(RatingBatch)]
    size = max(2000, known.matrix.nnz // 40)

    def tensors() -> Any:
        pairs, rng = Pairs(columns, size, device), np.random.default_rng(0)
        while True:
            yield from pairs(rng)

    def loader(batch_size: int, net: Any = None, histories: Any = None) -> Any:
        for batch in DataLoader(Rows(columns, histories), batch_size, shuffle=True, collate_fn=collate):
            if net is not None:
                net.brought = [tuple(part.to(device) for part in batch[f"history{side}"]) for side in (0, 1)]
            yield RatingBatch(**{name: batch[name].to(device) for name in names})

    plain, whole, rows = (model._net(0, device).to(device) for _ in range(3))
    plain.__class__ = PlainNet
    plain.dropout, plain.vector_dropout = nn.Dropout(model.dropout), nn.Dropout(model.vector_dropout)
    histories = _by_side(columns)
    ways = {
        f"package, batches of {size:,}": (whole, tensors),
        "same sums, DataLoader of rows, batches of 256": (rows, lambda: loader(256)),
        "plain DataLoader of rows, batches of 256": (plain, lambda: loader(256, plain, histories)),
    }
    found = [
        {name: _steps(net, batches(), seconds / ROUNDS) for name, (net, batches) in ways.items()} for _ in range(ROUNDS)
    ]
    return {name: max(each[name] for each in found) for name in ways}


def _by_side(columns: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Histories of people and of films as (indptr, indices, gaps)."""
    sides = []
    for rows, others, gaps in (("users", "items", "user_gaps"), ("items", "users", "item_gaps")):
        order = np.argsort(columns[rows], kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(columns[rows]))])
        sides.append((indptr, columns[others][order].astype(np.int64), columns[gaps][order]))
    return sides


def _best(work: Callable[[], Any], repeats: int) -> float:
    """Fewest CPU seconds of several calls (numpy on one thread)."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def serving_speed(model: Any, known: Interactions) -> dict[str, float]:
    """Milliseconds for all films of one person and for a newcomer's list (best of 20), seconds for all (best of 2)."""
    one, everybody = known.rows(np.array([0])), known.rows(np.arange(known.n_users))
    return {
        "one_person_ms": 1000 * _best(lambda: model.score(one, known.user_ids[:1]), 20),
        "newcomer_ms": 1000 * _best(lambda: model.recommend_new(known.item_ids[:10]), 20),
        "everybody_s": _best(lambda: model.score(everybody, known.user_ids), 2),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and write ``reports/<dataset>/benchmark_neural.json``."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.neural", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each training loop")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    data, device = load_dataset(given.dataset), choose_device(given.device)
    known = Interactions.from_frame(splits.random(data.interactions, seed=0).history)
    torch.set_num_threads(1)
    speeds = training_speed(known, data.items, data.users, given.seconds, device)
    fast, *slow = speeds.values()
    start, cpu = time.perf_counter(), time.process_time()
    hybrid = NeuralHybrid(device=given.device).fit(known, items=data.items, users=data.users)
    fit = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
    ranker = NeuralRanker(epochs=2, device=given.device).fit(known, items=data.items, users=data.users)
    report = {
        "conditions": {
            "dataset": data.name,
            "ratings": int(known.matrix.nnz),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
            "threads": 1,
            "torch": torch.__version__,
        },
        "examples_per_second": speeds,
        "ratio": {"to the same sums by rows": fast / slow[0], "to the plain loop": fast / slow[1]},
        "fit": fit,
        "hybrid": serving_speed(hybrid, known),
        "ranker": serving_speed(ranker, known),
    }
    written = write_json(Paths(given.dataset).reports / "benchmark_neural.json", report)
    for name, part in report.items():
        sys.stdout.write(f"{name}: {part}\n")
    sys.stdout.write(f"Written: {written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
