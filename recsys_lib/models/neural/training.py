"""A trainer that knows nothing of recommendation: a module and batches in, a trained module and its log out."""

from __future__ import annotations

import copy
import ctypes
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm


@dataclass
class Plan:
    """A module to train, its batches, and how."""

    module: nn.Module
    groups: list[dict[str, Any]]  # its parameters for AdamW, each group with its own weight_decay
    batches: Callable[[np.random.Generator], Iterable[Any]]  # of one epoch
    steps: int  # batches an epoch
    loss: Callable[[nn.Module, Any], Tensor]  # (module, batch) -> scalar
    epochs: int
    lr: float  # the highest learning rate
    schedule: str = "onecycle"  # up and down again (Smith and Topin, "Super-Convergence", 2018), or "constant"
    clip: float = 1.0  # largest norm of the gradient
    average: float = 0.0  # decay a step of the exponential moving average of the weights; 0 keeps the last weights
    patience: int | None = None  # epochs without a better validation value after which training stops
    seed: int = 0  # what an epoch draws depends on (seed, epoch) alone
    device: str = "auto"  # CUDA, else MPS, else CPU; or a device's name


class TrainingFailedError(RuntimeError):
    """The loss is no number any more."""


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


def train(
    plan: Plan, *, validate: Callable[[nn.Module], float] | None = None, progress: str | None = None
) -> list[dict]:
    """Train ``plan.module`` in place, leaving the averaged weights, or those of the best epoch, in it.

    One CPU thread does it: nets as small as these lose time with more, and one gives the same bits on every machine of
    a kind. ``validate`` is called with the module after every epoch, smaller is better; ``progress`` is the text of a
    bar. Returns a row an epoch: epoch (from 1), loss (mean of the batches), lr (at its end), valid (or None), seconds.

    TrainingFailedError if a loss is NaN or infinite, in any process; names the epoch, the batch and the parameter that
    blew up. ValueError if there are more processes than batches in an epoch.
    """
    if plan.schedule not in ("onecycle", "constant"):
        raise ValueError(f"schedule is {plan.schedule!r}; it must be 'onecycle' or 'constant'")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _memory_kept():
            return _train(plan, validate, progress)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _memory_kept() -> Iterator[None]:
    """Let Linux's C library keep what one step frees for the next; it is given back at the end.

    Large tensors would get new pages from the system every time, which took 40% of a step of 200,000 pairs.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    adjust = getattr(library, "mallopt", None)  # of glibc
    if adjust is None:
        yield
        return
    trimmed, mapped_from, mapped = -1, -3, -4  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX of malloc.h
    adjust(trimmed, 2**31 - 1)
    adjust(mapped, 0)
    try:
        yield
    finally:
        for what, value in ((trimmed, 2**26), (mapped_from, 2**25), (mapped, 2**16)):  # what it comes to by itself
            adjust(what, value)
        library.malloc_trim(0)


def _train(plan: Plan, validate: Callable[[nn.Module], float] | None, progress: str | None) -> list[dict]:
    device, (rank, processes) = choose_device(plan.device), _place()
    steps = plan.steps // processes
    if not steps:
        raise ValueError(f"there are {processes} processes for {plan.steps} batches an epoch: use a smaller batch_size")
    module = plan.module.to(device)
    optimizer = torch.optim.AdamW(plan.groups, lr=plan.lr, fused=device.type in ("cpu", "cuda"))
    if plan.schedule == "onecycle":
        how = {"total_steps": steps * plan.epochs + 1, "cycle_momentum": False}
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.lr, **how)
    else:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    served = module  # the weights that would be used now
    if plan.average:
        averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(plan.average))
        averaged.n_averaged.fill_(1)  # the weights at the start
        served = averaged.module
    log, best, best_epoch, kept = [], np.inf, 0, None
    bar = tqdm(range(1, plan.epochs + 1), desc=progress, disable=progress is None, leave=False)
    for epoch in bar:
        started, losses = time.perf_counter(), []
        for loss in _gradients(plan, epoch, device):
            losses.append(loss)
            optimizer.step()
            scheduler.step()
            if plan.average:
                averaged.update_parameters(module)
        valid = None
        if validate is not None:
            with torch.no_grad():
                valid = float(validate(served.eval())) if rank == 0 else 0.0
            if processes > 1:
                shared = torch.tensor(valid, dtype=torch.float64, device=device)
                distributed.broadcast(shared, 0)
                valid = shared.item()
            if plan.patience is not None and valid < best:
                best, best_epoch, kept = valid, epoch, copy.deepcopy(served.state_dict())
        row = {"epoch": epoch, "loss": float(np.mean(losses)), "lr": optimizer.param_groups[0]["lr"], "valid": valid}
        log.append({**row, "seconds": time.perf_counter() - started})
        bar.set_postfix(loss=row["loss"], valid=valid)
        if kept is not None and epoch - best_epoch >= plan.patience:
            break
    module.load_state_dict(served.state_dict() if kept is None else kept)
    module.eval()
    return log


def _gradients(plan: Plan, epoch: int, device: torch.device) -> Iterator[float]:
    """Leave the gradients of one batch of an epoch after another in the module, and give its loss."""
    module, (rank, processes) = plan.module.train(), _place()
    rng = np.random.default_rng([plan.seed, epoch])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(rng.integers(2**62)) + rank)
        whole = plan.steps // processes * processes  # batches that every process has as many of
        own = islice(plan.batches(rng), rank, whole if processes > 1 else None, processes)
        for number, batch in enumerate(own, start=1):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                loss = plan.loss(module, batch)
            module.zero_grad(set_to_none=True)
            loss.backward()
            value = loss.item() if processes == 1 else _shared(module, loss)
            norm = nn.utils.clip_grad_norm_(module.parameters(), plan.clip)
            if not (np.isfinite(value) and torch.isfinite(norm)):
                raise TrainingFailedError(
                    f"loss is {value} in epoch {epoch}, batch {number}; {_culprit(module)}. "
                    f"A smaller learning rate than {plan.lr} may help"
                )
            yield value


def _place() -> tuple[int, int]:
    """Number of this process among those that train together, and how many they are."""
    together = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)


def _shared(module: nn.Module, loss: Tensor) -> float:
    """Put the mean of all processes' gradients in place of this one's; return the mean of their losses."""
    grads = [value.grad for value in module.parameters() if value.grad is not None]
    whole = nn.utils.parameters_to_vector([loss.detach().float(), *grads]) / distributed.get_world_size()
    distributed.all_reduce(whole)
    nn.utils.vector_to_parameters(whole[1:], grads)
    return whole[0].item()


def _culprit(module: nn.Module) -> str:
    """Name the first parameter that is not finite, or else the first whose gradient is not."""
    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the parameter {name!r} is not finite"
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name!r} is not finite, its largest weight is {parameter.abs().max():.3g}"
    return "all parameters and gradients are finite, so the batch itself holds a value that is not"
