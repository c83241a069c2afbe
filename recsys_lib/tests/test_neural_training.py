"""The trainer: it learns, the same every time, and stops on NaN with names."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from recsys_lib.models import NeuralRanker
from recsys_lib.models.neural.nets import Dropout
from recsys_lib.models.neural.training import Plan, TrainingFailedError, choose_device, train
from recsys_lib.run.run import Run
from recsys_lib.scale import fit
from recsys_lib.tests.demo_home import make_run

INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([1.0, -2.0, 0.5, 0.0]) + 0.3


def plan(epochs: int, poisoned: int | None = None, *, size: int = 16, dropout: float = 0.1, **more) -> Plan:
    """Linear regression with dropout, in batches of 16; batch number ``poisoned`` holds a NaN."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), Dropout(dropout), nn.Linear(8, 1))

    def batches(rng):
        order = torch.from_numpy(rng.permutation(64))
        for number, chosen in enumerate(order.split(size), start=1):
            x = INPUTS[chosen].clone()
            if number == poisoned:
                x[0, 0] = torch.nan
            yield x, TARGETS[chosen]

    def loss(net, batch):
        return (net(batch[0])[:, 0] - batch[1]).square().mean()

    groups = [{"params": list(module.parameters()), "weight_decay": 0.0}]
    return Plan(module, groups, batches, 64 // size, loss, epochs, 0.05, **{"device": "cpu", **more})


def weights(one: Plan) -> np.ndarray:
    return torch.cat([value.detach().ravel() for value in one.module.state_dict().values()]).numpy()


@pytest.mark.parametrize("schedule", ["onecycle", "constant"])
def test_learns(schedule):
    one = plan(40, schedule=schedule)
    log = train(one)
    assert [row["epoch"] for row in log] == list(range(1, 41))
    assert log[-1]["loss"] < 0.3 * log[0]["loss"]
    with torch.no_grad():
        assert float(one.loss(one.module, (INPUTS, TARGETS))) < 0.2
    with pytest.raises(ValueError, match="'onecycle' or 'constant'"):
        train(plan(1, schedule="steps"))


def test_same_seed_same_weights_other_seed_others_and_the_global_generator_is_left_alone():
    runs, before = [plan(3, seed=seed) for seed in (1, 1, 2)], torch.get_rng_state()
    for one in runs:
        train(one)
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = map(weights, runs)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_nan_names_epoch_batch_and_parameter():
    with pytest.raises(TrainingFailedError, match=r"loss is nan in epoch 1, batch 3; the gradient of '0.weight'"):
        train(plan(2, poisoned=3))
    one = plan(2)
    with torch.no_grad():
        one.module[2].bias.fill_(torch.inf)
    with pytest.raises(TrainingFailedError, match=r"epoch 1, batch 1; the parameter '2.bias' is not finite"):
        train(one)


def test_stops_early_and_keeps_the_best():
    values, weights_then = iter([3.0, 1.0, 2.0, 2.5, 2.2, 0.1]), []

    def validate(module):
        weights_then.append(module[0].weight.detach().clone())
        return next(values)

    one = plan(6, schedule="constant", patience=3)
    assert len(train(one, validate=validate)) == 5
    assert torch.equal(one.module[0].weight, weights_then[1])


def test_average_lags_behind():
    plain, averaged = plan(2, schedule="constant"), plan(2, schedule="constant", average=0.9)
    start = weights(averaged)
    train(plain)
    train(averaged)
    assert np.abs(weights(averaged) - start).sum() < np.abs(weights(plain) - start).sum()


def test_dropout_hides_its_share_and_keeps_the_mean():
    layer = Dropout(0.25)
    out = layer(torch.ones(400, 400))
    assert abs(float((out == 0).float().mean()) - 0.25) < 0.01
    assert abs(float(out.mean()) - 1) < 0.01
    assert torch.equal(layer.eval()(INPUTS), INPUTS)


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(1, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_auto_takes_the_fastest_device_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert choose_device("auto").type == expected


def together(rank: int, folder: str, poisoned: int | None) -> None:
    """Train as one of two processes; write the weights and the log, or what was raised."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    one, judged = plan(6, poisoned, schedule="constant", patience=1, dropout=0.0), []
    try:
        log = train(one, validate=lambda net: len(judged.append(net) or judged))  # ever worse
    except TrainingFailedError as error:
        log = str(error)
    Path(folder, f"{rank}.json").write_text(json.dumps([weights(one).tolist(), log, len(judged)]))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("poisoned", [None, 2])
def test_two_processes_step_like_one_with_batches_of_twice_the_size(tmp_path, poisoned):
    torch.multiprocessing.spawn(together, (str(tmp_path), poisoned), nprocs=2)
    (first, log, judged), (second, same, not_judged) = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)
    )
    assert first == second
    if poisoned:  # the batch of one process ends both
        assert "loss is nan in epoch 1, batch 1" in log and "loss is nan in epoch 1, batch 1" in same
        return
    assert len(log) == len(same) == judged == 2 and not_judged == 0  # the first judges, and both stop
    alone = plan(1, schedule="constant", dropout=0.0, size=32)
    train(alone)
    assert np.allclose(first, weights(alone), atol=1e-6)


def test_more_processes_than_batches_are_refused(monkeypatch):
    monkeypatch.setattr("recsys_lib.models.neural.training._place", lambda: (0, 9))
    with pytest.raises(ValueError, match="9 processes for 4 batches an epoch: use a smaller batch_size"):
        train(plan(1))


def test_torchrun_fits_a_model_of_a_run_again(lab_home, capsys, monkeypatch):
    make_run("made")
    run = Run("made")
    run.save_model("neural_ranker", NeuralRanker(epochs=1, batch_size=10, embedding_dim=4).fit(run.known))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "recsys_lib.scale.fit", "made", "neural_ranker"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("neural_ranker_by_2 is saved")
    again = Run("made").models["neural_ranker_by_2"]
    assert np.isfinite(again.score(again.train.rows(range(5)))).all()
    with pytest.raises(SystemExit):
        fit.main(["made", "neural_ranker"])
    assert "no processes were started: torchrun" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(SystemExit):
        fit.main(["made", "popularity"])
    assert "'popularity' is no net of this run; those are neural_ranker" in capsys.readouterr().err
