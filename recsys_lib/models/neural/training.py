"""A trainer that knows nothing of recommendation: batches in, a trained module and its log out."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes
    ----------
    epochs, lr
        Passes over the data; the highest learning rate.
    schedule : {"onecycle", "constant"}
        Learning rate by step: up and down again (Smith and Topin, "Super-Convergence", 2018), or unchanged.
    clip
        Largest norm of the gradient.
    average
        Decay a step of the exponential moving average of the weights; 0 keeps the last weights.
    patience
        Epochs without a better validation value after which training stops; None never stops early.
    seed
        Of everything random: what an epoch draws depends on (seed, epoch) alone.
    device
        "auto" (CUDA, else MPS, else CPU) or a device's name.
    threads
        CPU threads while training. Nets as small as these lose time with more, and one gives the same bits on every
        machine of a kind, however many cores it has.
    """

    epochs: int
    lr: float
    schedule: str = "onecycle"
    clip: float = 1.0
    average: float = 0.0
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int = 1


@dataclass
class Task:
    """What to train, and on what.

    Attributes
    ----------
    module
        The net.
    groups
        Its parameters as groups for AdamW, each with its own ``weight_decay``.
    batches
        ``(rng) -> batches`` of one epoch.
    steps
        Batches an epoch.
    loss
        ``(module, batch) -> scalar tensor``.
    validate
        ``(module) -> value``, smaller is better; None where there is nothing to validate on.
    """

    module: nn.Module
    groups: list[dict[str, Any]]
    batches: Callable[[np.random.Generator], Iterable[Any]]
    steps: int
    loss: Callable[[nn.Module, Any], Tensor]
    validate: Callable[[nn.Module], float] | None = None


class TrainingFailedError(RuntimeError):
    """The loss is no number any more."""


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


def choose_device(device: str = "auto") -> torch.device:
    """Return the device of that name; for "auto" CUDA, else MPS, else the CPU.

    >>> choose_device("cpu").type
    'cpu'
    """
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def train(task: Task, plan: Plan, *, progress: str | None = None) -> list[dict]:
    """Train ``task.module`` in place, leaving the averaged weights, or those of the best epoch, in it.

    Parameters
    ----------
    progress
        Text of the progress bar; none without it.

    Returns
    -------
    list of dict
        epoch (from 1), loss (mean of the batches), lr (at the epoch's end), valid (or None), seconds.

    Raises
    ------
    TrainingFailedError
        If a loss is NaN or infinite; names the epoch, the batch and the parameter that blew up.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        run = _Run(task, plan)
        bar = tqdm(range(1, plan.epochs + 1), desc=progress, disable=progress is None, leave=False)
        for epoch in bar:
            run.epoch(epoch)
            bar.set_postfix({name: value for name, value in run.log[-1].items() if name in ("loss", "valid")})
            if run.exhausted:
                break
        run.finish()
    finally:
        torch.set_num_threads(before)
    return run.log


class _Run:
    """One training run: the module, its optimizer and what has been reached so far."""

    def __init__(self, task: Task, plan: Plan) -> None:
        self.task, self.plan = task, plan
        self.device = choose_device(plan.device)
        self.module = task.module.to(self.device)
        self.optimizer = torch.optim.AdamW(task.groups, lr=plan.lr, fused=self.device.type in ("cpu", "cuda"))
        self.scheduler = _scheduler(self.optimizer, plan, task.steps * plan.epochs)
        self.averaged = copy.deepcopy(self.module) if plan.average else None
        self.best: dict[str, Tensor] | None = None
        self.log: list[dict] = []

    @property
    def served(self) -> nn.Module:
        """The weights that would be used now."""
        return self.averaged if self.averaged is not None else self.module

    @property
    def exhausted(self) -> bool:
        """Whether the validation value has not got better for ``patience`` epochs."""
        values = [row["valid"] for row in self.log]
        if self.plan.patience is None or not values or values[-1] is None:
            return False
        return len(values) - 1 - int(np.argmin(values)) >= self.plan.patience

    def epoch(self, epoch: int) -> None:
        """One pass; everything random in it follows from (seed, epoch)."""
        started = time.perf_counter()
        rng = np.random.default_rng([self.plan.seed, epoch])
        losses = []
        self.module.train()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(rng.integers(2**62)))
            for number, batch in enumerate(self.task.batches(rng), start=1):
                losses.append(self._step(batch, epoch, number))
        valid = None
        if self.task.validate is not None:
            self.served.eval()
            with torch.no_grad():
                valid = float(self.task.validate(self.served))
        row = {"epoch": epoch, "loss": float(np.mean(losses)), "lr": self.optimizer.param_groups[0]["lr"]}
        self.log.append({**row, "valid": valid, "seconds": time.perf_counter() - started})
        values = [row["valid"] for row in self.log]
        if self.plan.patience is not None and valid is not None and int(np.argmin(values)) == len(values) - 1:
            self.best = {name: value.detach().clone() for name, value in self.served.state_dict().items()}

    def _step(self, batch: Any, epoch: int, number: int) -> float:
        """Forward, backward, clip, step, average."""
        half = self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            loss = self.task.loss(self.module, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        value = loss.item()
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.plan.clip)
        if not (np.isfinite(value) and torch.isfinite(norm)):
            raise TrainingFailedError(
                f"loss is {value} in epoch {epoch}, batch {number}; {_culprit(self.module)}. "
                f"A smaller learning rate than {self.plan.lr} may help"
            )
        self.optimizer.step()
        self.scheduler.step()
        if self.averaged is not None:
            _move_towards(self.averaged, self.module, 1 - self.plan.average)
        return value

    def finish(self) -> None:
        """Put the weights that are to be used into the task's module."""
        self.module.load_state_dict(self.best if self.best is not None else self.served.state_dict())
        self.module.eval()


def _scheduler(optimizer: torch.optim.Optimizer, plan: Plan, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rate by step."""
    if plan.schedule == "onecycle":
        top = [group.get("lr", plan.lr) for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, top, total_steps=max(steps, 1) + 1, cycle_momentum=False)
    if plan.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    raise ValueError(f"schedule is {plan.schedule!r}; it must be 'onecycle' or 'constant'")


@torch.no_grad()
def _move_towards(averaged: nn.Module, module: nn.Module, share: float) -> None:
    """Move the average a share of the way to the present weights."""
    torch._foreach_lerp_(list(averaged.parameters()), list(module.parameters()), share)
    for mine, theirs in zip(averaged.buffers(), module.buffers(), strict=True):
        mine.copy_(theirs)


def _culprit(module: nn.Module) -> str:
    """Name the first parameter that is not finite, or else the first whose gradient is not."""
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the parameter {name!r} is not finite"
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name!r} is not finite, its largest weight is {parameter.abs().max():.3g}"
    return "all parameters and gradients are finite, so the batch itself holds a value that is not"
