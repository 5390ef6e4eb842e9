"""Learning rates as functions of the iteration: a warm-up, then steps or a cosine.

Each is a pure function of the iteration, so a resumed run continues at the right rate.
"""

import bisect
import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from ..errors import ConfigError
from ..ranges import Fraction, Iterations, PositiveFloat
from ..registry import Block
from .registries import SCHEDULE_REGISTRY


class _WarmupLR(LRScheduler):
    """A linear warm-up before whatever ``factor`` says; both looked up every so many iterations."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warmup_iters: int,
        warmup_factor: float,
        step_iters: int,
    ) -> None:
        if step_iters < 1:
            raise ValueError(f"step_iters must be at least 1, got {step_iters}")
        self.warmup_iters = warmup_iters
        self.warmup_factor = warmup_factor
        self.step_iters = step_iters
        super().__init__(optimizer)

    @abstractmethod
    def factor(self, iteration: int) -> float:
        """What the base rate is multiplied by at an iteration, warm-up aside."""

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at the current iteration."""
        iteration = self.last_epoch // self.step_iters * self.step_iters
        factor = self.factor(iteration)
        if iteration < self.warmup_iters:
            progress = iteration / self.warmup_iters
            factor *= self.warmup_factor * (1 - progress) + progress
        return [base_lr * factor for base_lr in self.base_lrs]


@SCHEDULE_REGISTRY.register
class WarmupMultiStepLR(_WarmupLR):
    """A rate that falls by a factor at given iterations (RetinaNet, section 4.1).

    Args:
        milestones: Iterations at which it falls.
        gamma: What it is multiplied by at each.
        warmup_iters: Iterations over which it rises to its base value.
        warmup_factor: Share of the base value that the warm-up begins with.
        step_iters: The rate changes at multiples of this only; those of an epoch are what schedules
            that are stepped after an epoch do.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        milestones: list[Iterations],
        gamma: PositiveFloat = 0.1,
        warmup_iters: Iterations = 1000,
        warmup_factor: Fraction = 0.001,
        step_iters: Iterations = 1,
    ) -> None:
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones must rise, got {milestones}")
        self.milestones = list(milestones)
        self.gamma = gamma
        super().__init__(optimizer, warmup_iters, warmup_factor, step_iters)

    def factor(self, iteration: int) -> float:
        """Gamma to the power of the milestones passed."""
        return self.gamma ** bisect.bisect_right(self.milestones, iteration)


@SCHEDULE_REGISTRY.register
class WarmupCosineLR(_WarmupLR):
    """A rate that falls along half a cosine (Loshchilov and Hutter 2016, eq. 5, one cycle).

    Args:
        end_factor: Share of the base value at the end.
        warmup_iters: Iterations over which it rises to its base value.
        warmup_factor: Share of the base value that the warm-up begins with.
        step_iters: The rate changes at multiples of this only; those of an epoch are what schedules
            that are stepped after an epoch do.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_iter: int,
        *,
        end_factor: Fraction = 0.0,
        warmup_iters: Iterations = 1000,
        warmup_factor: Fraction = 0.001,
        step_iters: Iterations = 1,
    ) -> None:
        self.max_iter = max_iter
        self.end_factor = end_factor
        super().__init__(optimizer, warmup_iters, warmup_factor, step_iters)

    def factor(self, iteration: int) -> float:
        """1 after the warm-up, ``end_factor`` at the last iteration."""
        length = max(self.max_iter - self.warmup_iters, 1)
        progress = min(max(iteration - self.warmup_iters, 0) / length, 1.0)
        return self.end_factor + (1 - self.end_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def build_schedule(block: Block, optimizer: torch.optim.Optimizer, max_iter: int) -> LRScheduler:
    """Build the schedule of a block.

    CyclicLR and OneCycleLR, whose rates replace the optimizer's, give each parameter group its
    share: the rate times the group's ``lr_factor``.

    Raises:
        ConfigError: The schedule waits for a metric, as ReduceLROnPlateau does, or ends before the
            run, as OneCycleLR with fewer ``total_steps``.
        ValueError: The schedule refuses a value.
    """
    component = SCHEDULE_REGISTRY.get(block.name)
    if component is ReduceLROnPlateau:
        raise ConfigError(
            "schedule 'ReduceLROnPlateau' waits for a metric, and a schedule here knows the "
            "iteration only; take another, such as WarmupMultiStepLR or WarmupCosineLR"
        )
    arguments = Block(block)
    factors = [group.get("lr_factor", 1.0) for group in optimizer.param_groups]
    if component in (CyclicLR, OneCycleLR) and any(factor != 1 for factor in factors):
        for key in ("base_lr", "max_lr"):
            if isinstance(block.get(key), int | float):
                arguments[key] = [block[key] * factor for factor in factors]
    schedule: LRScheduler = SCHEDULE_REGISTRY.build(
        arguments, optimizer=optimizer, max_iter=max_iter
    )
    if isinstance(schedule, OneCycleLR) and schedule.total_steps < max_iter:
        raise ConfigError(
            f"schedule '{block.name}' ends after {schedule.total_steps} iterations, and "
            f"solver.max_iter is {max_iter}; set solver.schedule.total_steps to {max_iter}"
        )
    return schedule
