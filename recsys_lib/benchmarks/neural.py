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
import timeit
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, StackDataset

from recsys_lib import load_dataset, splits
from recsys_lib.data.interactions import Interactions
from recsys_lib.files import write_json
from recsys_lib.models import NeuralHybrid, NeuralRanker
from recsys_lib.models.neural.nets import Pairs, RatingBatch, squared_loss
from recsys_lib.models.neural.training import choose_device
from recsys_lib.paths import Paths

ROUNDS = 3  # in which both ways of making batches take their turn; the fastest counts


def examples_per_second(net: Any, batches: Iterable[RatingBatch], seconds: float) -> float:
    """Training examples a second over about so many seconds, after a warm-up of two batches."""
    optimizer, done, start = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True), 0, 0.0
    on_gpu = net.product.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    net.train()
    for number, batch in enumerate(batches):
        if number == 2:
            start, done = clock(), 0
        optimizer.zero_grad(set_to_none=True)
        squared_loss(net, batch).backward()
        optimizer.step()
        done += len(batch.users)
        if on_gpu:
            torch.cuda.synchronize()
        if number > 2 and clock() - start > seconds:
            break
    return done / (clock() - start)


def training_speed(model: NeuralHybrid, seconds: float, device: torch.device) -> dict[str, float]:
    """Training examples a second with either way of making batches, of a model that has its data prepared."""
    size, rng = max(2000, model.train.matrix.nnz // 40), np.random.default_rng(0)
    pairs = Pairs(model.features.training(), size, device)
    loader = DataLoader(StackDataset(**pairs.columns), 256, shuffle=True)
    batches = {
        f"package, batches of {size:,}": lambda: chain.from_iterable(map(pairs, repeat(rng))),
        "DataLoader of rows, batches of 256": lambda: (RatingBatch(**b) for b in chain.from_iterable(repeat(loader))),
    }
    nets = {name: model._plan(0).module.to(device) for name in batches}
    rounds = [
        {name: examples_per_second(nets[name], make(), seconds / ROUNDS) for name, make in batches.items()}
        for _ in range(ROUNDS)
    ]
    return {name: max(each[name] for each in rounds) for name in batches}


def serving_speed(model: Any, known: Interactions) -> dict[str, float]:
    """Milliseconds for all items of one user and for a new user's list (best of 20), seconds for all (best of 2)."""
    one, everybody = known.rows(np.array([0])), known.rows(np.arange(known.n_users))

    def best(work: str, repeats: int) -> float:
        return min(timeit.repeat(work, globals=names, timer=time.process_time, number=1, repeat=repeats))

    names = {"model": model, "known": known, "one": one, "everybody": everybody}
    return {
        "one_user_ms": 1000 * best("model.score(one, known.user_ids[:1])", 20),
        "new_user_ms": 1000 * best("model.recommend_new(known.item_ids[:10])", 20),
        "everybody_s": best("model.score(everybody, known.user_ids)", 2),
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
