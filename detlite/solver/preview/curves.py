"""Rates over the iterations of a run, by stepping the real optimizer and schedule."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ...config.schema import Config, EMASection
from ...errors import ConfigError, UserError
from ...registry import Block
from ..freezing import freeze_parameters
from ..lr_schedule import build_schedule
from ..optimizer import build_optimizer, group_table
from ..parameter_names import in_few_words
from .turning_points import TurningPoint, turning_points

# Hooks that do something now and then, and the section's key for their period.
_PERIODIC: dict[str, tuple[str, Callable[[Config], int]]] = {
    "Evaluation": ("evaluation", lambda config: config.test.eval_period),
    "ValidationLoss": ("validation loss", lambda config: config.test.eval_period),
    "PeriodicCheckpointer": ("checkpoint", lambda config: config.train.checkpoint_period),
}


@dataclass(frozen=True)
class Curve:
    """A number in each iteration.

    Attributes:
        label: The parameter groups that it is the same for.
        values: (max_iter,) float64.
    """

    label: str
    values: np.ndarray

    @property
    def moves(self) -> bool:
        """Whether it is not constant."""
        return bool((self.values != self.values[0]).any())


@dataclass(frozen=True)
class SchedulePreview:
    """What a run does to its optimizer.

    Attributes:
        max_iter: Iterations of the run.
        batch_size: Images of an iteration.
        images: Images of an epoch; None where the data is not there to be counted.
        lr: Learning rates; the first is that of most of the parameters with the plain rate.
        momentum: Of optimizers that have one, also Adam's first beta.
        weight_decay: Empty where the optimizer has none.
        ema_decay: Of the moving average, None without one.
        events: Evaluations and the like, each with the numbers of iterations done before it.
        turning_points: Where a learning rate jumps or bends.
        optimizer: What the optimizer and the schedule are called.
        groups: A table of the parameter groups.
    """

    max_iter: int
    batch_size: int
    images: int | None
    lr: list[Curve]
    momentum: list[Curve]
    weight_decay: list[Curve]
    ema_decay: np.ndarray | None
    events: dict[str, list[int]]
    turning_points: list[TurningPoint]
    optimizer: str
    groups: str

    @property
    def iterations_per_epoch(self) -> float | None:
        """How many iterations see as many images as there are."""
        return self.images / self.batch_size if self.images else None


def preview_schedule(
    config: Config, model: nn.Module, images: int | None = None
) -> SchedulePreview:
    """Find out what a config does to the optimizer in each iteration.

    Args:
        config: As the run will have it, so after ``scale_to_batch``.
        model: The model, whose parameters may be on the meta device; some of them are frozen here.
        images: Images of an epoch, if known.

    Raises:
        ConfigError: The solver section does not fit the model, or the schedule fails on its way.
    """
    solver = config.solver
    freeze_parameters(model, solver.freeze)
    try:
        optimizer = build_optimizer(
            _unfused(solver.optimizer),
            model,
            weight_decay_norm=solver.weight_decay_norm,
            weight_decay_bias=solver.weight_decay_bias,
            parameter_groups=solver.parameter_groups,
            layer_decay=solver.layer_decay,
        )
        schedule = build_schedule(solver.schedule, optimizer, solver.max_iter)
        groups = group_table(optimizer)
        seen = _step_through(optimizer, schedule, solver.max_iter)
    except (ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise ConfigError(f"solver: {error}") from error
    plain = _plain_group(optimizer)
    lr = _curves(optimizer, seen["lr"], first=plain)
    return SchedulePreview(
        max_iter=solver.max_iter,
        batch_size=config.data.batch_size,
        images=images,
        lr=lr,
        momentum=_curves(optimizer, seen["momentum"], first=plain),
        weight_decay=_curves(optimizer, seen["weight_decay"], first=plain),
        ema_decay=_ema_decay(config.train.ema, solver.max_iter),
        events=_events(config),
        turning_points=turning_points(np.stack([curve.values for curve in lr])),
        optimizer=f"{solver.optimizer.name}, {solver.schedule.name}",
        groups=groups,
    )


def _unfused(block: Block) -> Block:
    # Fused kernels refuse the meta device; the rates are the same without.
    return Block({**block, "fused": None}) if block.get("fused") else block


def _step_through(
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    max_iter: int,
) -> dict[str, np.ndarray | None]:
    """What each group has in each iteration, (groups, max_iter), None for what it has not."""
    read: dict[str, Callable[[dict[str, Any]], float]] = {"lr": lambda group: group["lr"]}
    keys = optimizer.param_groups[0].keys()
    if "momentum" in keys:
        read["momentum"] = lambda group: group["momentum"]
    elif "betas" in keys:
        read["momentum"] = lambda group: group["betas"][0]
    if "weight_decay" in optimizer.defaults:
        read["weight_decay"] = lambda group: group["weight_decay"]
    seen = {name: np.empty((len(optimizer.param_groups), max_iter)) for name in read}
    with warnings.catch_warnings():
        # That the optimizer makes no steps here: no gradient is there to step along.
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step", category=UserWarning)
        for iteration in range(max_iter):
            for name, value in read.items():
                seen[name][:, iteration] = [value(group) for group in optimizer.param_groups]
            schedule.step()
    return {name: seen.get(name) for name in ("lr", "momentum", "weight_decay")}


def _plain_group(optimizer: torch.optim.Optimizer) -> int:
    """The group with the plain rate and, of those, the most numbers."""

    def order(i: int) -> tuple[bool, int]:
        group = optimizer.param_groups[i]
        return group["lr_factor"] == 1, sum(p.numel() for p in group["params"])

    return max(range(len(optimizer.param_groups)), key=order)


def _curves(optimizer: torch.optim.Optimizer, values: np.ndarray | None, first: int) -> list[Curve]:
    """The different curves among those of the groups."""
    if values is None:
        return []
    names: dict[bytes, list[str]] = {}
    rows: dict[bytes, np.ndarray] = {}
    order = [first, *(i for i in range(len(values)) if i != first)]
    for i in order:
        key = values[i].tobytes()
        names.setdefault(key, []).append(optimizer.param_groups[i]["name"])
        rows[key] = values[i]
    if len(rows) == 1:
        return [Curve("all", values[first])]
    return [Curve(in_few_words(names[key], "; "), rows[key]) for key in rows]


def _ema_decay(ema: EMASection, max_iter: int) -> np.ndarray | None:
    if not ema.decay:
        return None
    steps = np.arange(max_iter)
    copied = (steps < ema.start + ema.period) if ema.start else np.zeros(max_iter, bool)
    updated = steps % ema.period == 0
    updates = np.cumsum(updated & ~copied) - 1
    rising = (1 + updates) / (ema.warmup + updates) if ema.warmup else np.full(max_iter, np.inf)
    kept = np.where(copied, 0.0, np.minimum(ema.decay, rising))
    return np.where(updated, kept, 1.0)


def _events(config: Config) -> dict[str, list[int]]:
    """After which iterations something is due; all of it is at the end as well."""
    own = {block.name: block for block in config.train.hooks}
    end = config.solver.max_iter
    events = {}
    for hook, (title, period_of) in _PERIODIC.items():
        block = own.get(hook, Block())
        is_default = hook != "ValidationLoss"
        needs_data = hook != "PeriodicCheckpointer"
        if not (is_default or block) or not block.get("enabled", True):
            continue
        if needs_data and not config.data.test:
            continue
        period = block.get("period")
        period = period_of(config) if period is None else period
        events[title] = sorted({*(range(period, end + 1, period) if period else ()), end})
    return events
