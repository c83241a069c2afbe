"""Fit a net of a run again on several processes, on CPUs or GPUs.

``torchrun --nproc-per-node 2 -m recsys_lib.scale.fit ml-100k neural_ranker`` saves ``neural_ranker_by_2`` beside it,
which 07 evaluates like every other model. A step learns from one batch of each process (see
:func:`recsys_lib.models.neural.training.train`).
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from recsys_lib.data.interactions import Interactions
from recsys_lib.data.s3 import StorageError
from recsys_lib.models.neural.base import NeuralModel
from recsys_lib.run.run import MissingArtifactError, OtherDataError, Run


def main(arguments: list[str] | None = None) -> int:
    """Fit a saved neural model of a run again, by all processes that torchrun started, and save it."""
    parser = argparse.ArgumentParser(prog="torchrun -m recsys_lib.scale.fit", description=main.__doc__)
    parser.add_argument("dataset")
    parser.add_argument("model", help="such as neural_ranker, causal_transformer, neural_hybrid")
    given = parser.parse_args(arguments)
    if "WORLD_SIZE" not in os.environ:
        parser.error("no processes were started: torchrun --nproc-per-node 2 -m recsys_lib.scale.fit DATASET MODEL")
    try:
        run = Run(given.dataset)
        nets = [name for name, model in run.models.items() if isinstance(model, NeuralModel)]
        if given.model not in nets:
            parser.error(f"{given.model!r} is no net of this run; those are {', '.join(nets) or 'none'}")
        model, history = run.models[given.model].fresh(), Interactions.from_frame(run.tables.split.history)
    except (MissingArtifactError, OtherDataError, StorageError) as error:
        print(error, file=sys.stderr)
        return 1

    from torch import cuda, distributed, tensor

    if cuda.is_available():
        cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if cuda.is_available() else "gloo")
    try:
        started = time.process_time()
        model.fit(history, items=run.tables.items, users=run.tables.users)
        spent = tensor(time.process_time() - started, device="cuda" if cuda.is_available() else "cpu")
        distributed.all_reduce(spent)
        if distributed.get_rank() == 0:
            name = f"{given.model}_by_{distributed.get_world_size()}"
            run.save_model(name, model, fit_seconds=spent.item())
            print(f"{name} is saved: {spent.item():.0f} CPU seconds; `{run.command('07')}` evaluates it")
    finally:
        distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
