"""How fast the neural models train and serve: ``python -m recsys_lib.benchmarks.neural``.

The same hybrid learns from the same ratings twice: from tensors cut into batches, as the package does it, and from a
``DataLoader`` that fetches one row at a time, as tutorials have it. Both in one run, in turns, the fastest of three
rounds each, and on a CPU by CPU seconds, so that the ratio depends little on what else the machine does. Then: seconds
of a whole fit, milliseconds to score all items for one user and to list items for a new one, seconds for everybody, by
either net, with numpy alone.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from recsys_lib import load_dataset, splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.files import write_json
from recsys_lib.models import NeuralHybrid, NeuralRanker
from recsys_lib.models.neural.rating_net import Pairs, RatingBatch, squared_loss
from recsys_lib.models.neural.training import choose_device
from recsys_lib.paths import Paths

ROUNDS = 3  # in which both ways take their turn; the fastest counts


class Rows(Dataset):
    """One training pair at a time."""

    def __init__(self, columns: dict[str, torch.Tensor]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["users"])

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: values[row] for name, values in self.columns.items()}


def examples_per_second(net: Any, batches: Iterator[RatingBatch], seconds: float) -> float:
    """Training examples a second over about so many seconds, after a warm-up of two batches."""
    optimizer, seen, start = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True), 0, 0.0
    on_gpu = net.product.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    net.train()
    for number, batch in enumerate(batches):
        if number == 2:
            start, seen = clock(), 0
        optimizer.zero_grad(set_to_none=True)
        squared_loss(net, batch).backward()
        optimizer.step()
        seen += len(batch.users)
        if on_gpu:
            torch.cuda.synchronize()
        if number > 2 and clock() - start > seconds:
            break
    return seen / (clock() - start)


def training_speed(model: NeuralHybrid, seconds: float, device: torch.device) -> dict[str, float]:
    """Training examples a second of each way, of a model that has its data prepared."""
    size = max(2000, model.train.matrix.nnz // 40)
    pairs = Pairs(model.features.training(), size, device)

    def tensors() -> Iterator[RatingBatch]:
        rng = np.random.default_rng(0)
        while True:
            yield from pairs(rng)

    def rows() -> Iterator[RatingBatch]:
        while True:
            for batch in DataLoader(Rows(pairs.columns), 256, shuffle=True):
                yield RatingBatch(**batch)

    ways = {f"package, batches of {size:,}": tensors, "DataLoader of rows, batches of 256": rows}
    nets = [model._task(0)[0].module.to(device) for _ in ways]
    rounds = [
        [examples_per_second(net, way(), seconds / ROUNDS) for net, way in zip(nets, ways.values(), strict=True)]
        for _ in range(ROUNDS)
    ]
    return {name: max(each[place] for each in rounds) for place, name in enumerate(ways)}


def best_of(work: Callable[[], Any], repeats: int) -> float:
    """Fewest CPU seconds of several calls."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def serving_speed(model: Any, known: Interactions) -> dict[str, float]:
    """Milliseconds for all items of one user and for a new user's list (best of 20), seconds for all (best of 2)."""
    one, everybody = known.rows(np.array([0])), known.rows(np.arange(known.n_users))
    return {
        "one_user_ms": 1000 * best_of(lambda: model.score(one, known.user_ids[:1]), 20),
        "new_user_ms": 1000 * best_of(lambda: model.recommend_new(known.item_ids[:10]), 20),
        "everybody_s": best_of(lambda: model.score(everybody, known.user_ids), 2),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and write ``reports/<dataset>/benchmark_neural.json``."""
    parser = argparse.ArgumentParser(prog="python -m recsys_lib.benchmarks.neural", description=main.__doc__)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each training loop")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    data, device = load_dataset(given.dataset), choose_device(given.device)
    known = Interactions.from_frame(splits.random(data.interactions, seed=0).history)
    tables = {"items": data.items, "users": data.users}
    torch.set_num_threads(1)
    start, cpu = time.perf_counter(), time.process_time()
    hybrid = NeuralHybrid(device=given.device).fit(known, **tables)
    fit = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
    ranker = NeuralRanker(epochs=2, device=given.device).fit(known, **tables)
    speeds = training_speed(hybrid, given.seconds, device)
    fast, slow = speeds.values()
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu"
    conditions = {"dataset": data.name, "ratings": int(known.matrix.nnz), "device": name, "torch": torch.__version__}
    report = {"conditions": conditions, "examples_per_second": speeds, "ratio": fast / slow, "fit": fit}
    report |= {"hybrid": serving_speed(hybrid, known), "ranker": serving_speed(ranker, known)}
    written = write_json(Paths(given.dataset).reports / "benchmark_neural.json", report)
    sys.stdout.write("".join(f"{name}: {part}\n" for name, part in report.items()) + f"Written: {written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
