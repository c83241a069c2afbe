"""A trainer that knows nothing of recommendation: batches in, a trained module and its log out."""

from __future__ import annotations

import copy
import json
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from recsys_lib.files import read_json, replacing_folder, write_json

CHECKPOINT_FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes
    ----------
    epochs, lr
        Passes over the data; the highest learning rate.
    schedule : {"onecycle", "cosine", "constant"}
        Learning rate by step: up and down again (Smith and Topin, "Super-Convergence", 2018), down, or unchanged.
    clip
        Largest norm of the gradient.
    average
        Decay a step of the exponential moving average of the weights; 0 keeps the last weights.
    patience
        Epochs without a better validation value after which training stops; None never stops early.
    seed
        Of everything random: an epoch depends on (seed, epoch) alone, which makes a resumed run bit-equal.
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
    """What to train on, in five functions.

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
    identity
        What a checkpoint must agree with to be resumed (data, version, parameters).
    """

    module: nn.Module
    groups: list[dict[str, Any]]
    batches: Callable[[np.random.Generator], Iterable[Any]]
    steps: int
    loss: Callable[[nn.Module, Any], Tensor]
    validate: Callable[[nn.Module], float] | None = None
    identity: dict[str, Any] = field(default_factory=dict)


class TrainingFailedError(RuntimeError):
    """The loss is no number any more."""


class CheckpointMismatchError(ValueError):
    """A checkpoint belongs to other data, another version or other parameters."""


class Dropout(nn.Module):
    """Dropout whose masks numpy draws on the CPU, several times faster than torch's; torch draws them elsewhere.

    The mask follows from torch's generator, so a seed still fixes everything.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    @property
    def scale(self) -> float:
        """What the values that are left are to be multiplied with."""
        return 1 / (1 - self.share) if self.training else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Hide a share of the values and scale the others up, while training."""
        return x * self.mask(x)

    def mask(self, x: Tensor) -> Tensor:
        """What to multiply ``x`` with: zeros, and elsewhere the scale; 1, (1,), where nothing is hidden."""
        kept = self.kept(x)
        if kept is None:
            return x.new_ones(1)
        if x.device.type != "cpu":
            return kept * self.scale
        return torch.from_numpy(np.multiply(kept.numpy(), np.float32(self.scale), dtype=np.float32))

    def kept(self, x: Tensor) -> Tensor | None:
        """Which values of ``x`` are left, bool; None where nothing is hidden."""
        if not self.training or not self.share:
            return None
        if x.device.type != "cpu":
            return torch.rand(x.shape, device=x.device) >= self.share
        bits = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw(-(-x.numel() // 4)).view(np.uint16)
        return torch.from_numpy(bits[: x.numel()] >= round(self.share * 65_536)).view(x.shape)


def hide(x: Tensor, kept: Tensor | None) -> Tensor:
    """Set what is not ``kept`` to 0, in place; None keeps all."""
    if kept is None:
        return x
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return x.mul_(kept)
    with np.errstate(invalid="ignore"):  # an infinite value is the trainer's to report
        np.multiply(x.numpy(), kept.numpy(), out=x.numpy())  # with booleans several times faster than torch
    return x


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


def train(task: Task, plan: Plan, *, checkpoint: Path | str | None = None, progress: str | None = None) -> list[dict]:
    """Train ``task.module`` in place, leaving the averaged weights, or those of the best epoch, in it.

    Parameters
    ----------
    checkpoint
        Folder to resume from where it exists, and to write to after every epoch.
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
    CheckpointMismatchError
        If the checkpoint was made for something else; says what differs.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        return _train(task, plan, checkpoint, progress)
    finally:
        torch.set_num_threads(before)


def _train(task: Task, plan: Plan, checkpoint: Path | str | None, progress: str | None) -> list[dict]:
    """What :func:`train` does, once the threads are set."""
    run = _Run(task, plan)
    first = run.resume(Path(checkpoint)) if checkpoint is not None else 1
    bar = tqdm(range(first, plan.epochs + 1), desc=progress, disable=progress is None, leave=False)
    for epoch in bar:
        if run.exhausted:
            break
        run.epoch(epoch)
        bar.set_postfix({name: value for name, value in run.log[-1].items() if name in ("loss", "valid")})
        if checkpoint is not None:
            run.save(Path(checkpoint))
    run.finish()
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
        """The weights that a person would use now."""
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

    # ---- checkpoints -----------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        identity = {"format": CHECKPOINT_FORMAT, "torch": torch.__version__, **asdict(self.plan), **self.task.identity}
        return json.loads(json.dumps(identity))  # as it is read back: lists for tuples

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that the rest of the run depends on, by name."""
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        if self.averaged is not None:
            tensors |= {f"averaged.{name}": value for name, value in self.averaged.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}

    def save(self, folder: Path) -> None:
        """Write the state after an epoch: tensors as safetensors, the rest as JSON."""
        with replacing_folder(folder) as temporary:
            save_file(self._tensors(), temporary / "state.safetensors")
            write_json(temporary / "state.json", {"identity": self._identity(), "log": self.log})

    def resume(self, folder: Path) -> int:
        """Take up the state in ``folder``, if there is one; return the epoch to go on with."""
        if not (folder / "state.json").is_file():
            return 1
        state = read_json(folder / "state.json")
        mine = {key: value for key, value in self._identity().items() if key not in ("epochs", "device")}
        for name, value in mine.items():
            found = state["identity"].get(name)
            if found != value:
                raise CheckpointMismatchError(f"checkpoint {folder} has {name} {found!r}, but this run has {value!r}")
        if state["identity"]["epochs"] != self.plan.epochs and self.plan.schedule != "constant":
            raise CheckpointMismatchError(
                f"checkpoint {folder} has epochs {state['identity']['epochs']}, but this run has "
                f"{self.plan.epochs}, and the schedule {self.plan.schedule!r} depends on it"
            )
        self.log = state["log"]
        self._take(folder / "state.safetensors")
        return len(self.log) + 1

    def _take(self, file: Path) -> None:
        """Read tensors back to where :meth:`_tensors` found them."""
        parts: dict[str, dict[str, Tensor]] = {"module": {}, "averaged": {}, "best": {}, "optimizer": {}}
        with safe_open(file, framework="pt", device=str(self.device)) as stored:
            for name in stored.keys():  # noqa: SIM118 - not a mapping
                part, _, rest = name.partition(".")
                parts[part][rest] = stored.get_tensor(name)
        self.module.load_state_dict(parts["module"])
        if self.averaged is not None:
            self.averaged.load_state_dict(parts["averaged"])
        self.best = parts["best"] or None
        state = self.optimizer.state_dict()
        for name, value in parts["optimizer"].items():
            number, _, key = name.partition(".")
            state["state"].setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict(state)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            for _ in range(len(self.log) * self.task.steps):
                self.scheduler.step()


def _scheduler(optimizer: torch.optim.Optimizer, plan: Plan, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rate by step."""
    if plan.schedule == "onecycle":
        top = [group.get("lr", plan.lr) for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, top, total_steps=max(steps, 1) + 1, cycle_momentum=False)
    if plan.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(steps, 1))
    if plan.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    raise ValueError(f"schedule is {plan.schedule!r}; it must be 'onecycle', 'cosine' or 'constant'")


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
