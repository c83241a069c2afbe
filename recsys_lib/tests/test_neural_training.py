"""The trainer: it learns, the same every time, and stops on NaN with names."""

import numpy as np
import pytest
import torch
from torch import nn

from recsys_lib.models.neural.training import (
    Dropout,
    Plan,
    Task,
    TrainingFailedError,
    choose_device,
    train,
)

INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS @ torch.tensor([1.0, -2.0, 0.5, 0.0]) + 0.3


def task(validate=None, poisoned=None) -> Task:
    """Linear regression with dropout, in batches of 16; batch number ``poisoned`` holds a NaN."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(4, 8), Dropout(0.1), nn.Linear(8, 1))

    def batches(rng):
        order = torch.from_numpy(rng.permutation(64))
        for number, chosen in enumerate(order.split(16), start=1):
            x = INPUTS[chosen].clone()
            if number == poisoned:
                x[0, 0] = torch.nan
            yield x, TARGETS[chosen]

    def loss(net, batch):
        return (net(batch[0])[:, 0] - batch[1]).square().mean()

    groups = [{"params": list(module.parameters()), "weight_decay": 0.0}]
    return Task(module, groups, batches, 4, loss, validate)


def weights(one: Task) -> list[np.ndarray]:
    return [value.detach().numpy() for value in one.module.state_dict().values()]


@pytest.mark.parametrize("schedule", ["onecycle", "constant"])
def test_learns(schedule):
    one = task()
    log = train(one, Plan(40, 0.05, schedule, device="cpu"))
    assert [row["epoch"] for row in log] == list(range(1, 41))
    assert log[-1]["loss"] < 0.3 * log[0]["loss"]
    with torch.no_grad():
        assert float(one.loss(one.module, (INPUTS, TARGETS))) < 0.2


def test_same_seed_same_weights_other_seed_others():
    runs = [task() for _ in range(3)]
    for one, seed in zip(runs, (1, 1, 2), strict=True):
        train(one, Plan(3, 0.05, seed=seed, device="cpu"))
    first, again, other = (weights(one) for one in runs)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(task(), Plan(2, 0.05, device="cpu"))
    assert torch.equal(torch.rand(1), expected)


def test_nan_names_epoch_batch_and_parameter():
    one = task(poisoned=3)
    with pytest.raises(TrainingFailedError, match=r"loss is nan in epoch 1, batch 3; the gradient of '0.weight'"):
        train(one, Plan(2, 0.05, device="cpu"))
    one = task()
    with torch.no_grad():
        one.module[2].bias.fill_(torch.inf)
    with pytest.raises(TrainingFailedError, match=r"epoch 1, batch 1; the parameter '2.bias' is not finite"):
        train(one, Plan(2, 0.05, device="cpu"))


def test_stops_early_and_keeps_the_best():
    values = iter([3.0, 1.0, 2.0, 2.5, 2.2, 0.1])
    seen = []

    def validate(module):
        seen.append(module[0].weight.detach().clone())
        return next(values)

    one = task(validate)
    log = train(one, Plan(6, 0.05, "constant", patience=3, device="cpu"))
    assert len(log) == 5
    assert torch.equal(one.module[0].weight, seen[1])


def test_average_lags_behind():
    plain, averaged = task(), task()
    start = weights(averaged)[0].copy()
    train(plain, Plan(2, 0.05, "constant", device="cpu"))
    train(averaged, Plan(2, 0.05, "constant", average=0.9, device="cpu"))
    assert np.abs(weights(averaged)[0] - start).sum() < np.abs(weights(plain)[0] - start).sum()


def test_dropout_hides_its_share_and_keeps_the_mean():
    layer = Dropout(0.25)
    out = layer(torch.ones(400, 400))
    assert abs(float((out == 0).float().mean()) - 0.25) < 0.01
    assert abs(float(out.mean()) - 1) < 0.01
    assert torch.equal(layer.eval()(INPUTS), INPUTS)


def test_unknown_schedule():
    with pytest.raises(ValueError, match="'onecycle' or 'constant'"):
        train(task(), Plan(1, 0.1, "steps", device="cpu"))


def test_auto_takes_the_fastest_device_there_is(monkeypatch):
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert choose_device("auto").type == expected
