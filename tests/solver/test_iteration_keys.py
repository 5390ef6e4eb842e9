"""Which keys scale with the batch: all of torch's schedules, and marks in signatures."""

import pytest
import torch

from detlite import HOOK_REGISTRY, SCHEDULE_REGISTRY, HookBase
from detlite.errors import ConfigError
from detlite.ranges import Count, Iterations, LearningRate
from detlite.solver import build_schedule
from detlite.solver.iteration_keys import _OF_TORCH

SCHEDULES = {
    "StepLR": "{name: StepLR, step_size: 20, gamma: 0.5}",
    "MultiStepLR": "{name: MultiStepLR, milestones: [20, 60]}",
    "ConstantLR": "{name: ConstantLR, total_iters: 20}",
    "LinearLR": "{name: LinearLR, total_iters: 40}",
    "PolynomialLR": "{name: PolynomialLR, total_iters: 80, power: 2.0}",
    "ExponentialLR": "{name: ExponentialLR, gamma: 0.96}",
    "CosineAnnealingLR": "{name: CosineAnnealingLR, T_max: 80, eta_min: 0.001}",
    "CosineAnnealingWarmRestarts": "{name: CosineAnnealingWarmRestarts, T_0: 20, eta_min: 0.001}",
    "CyclicLR": "{name: CyclicLR, base_lr: 0.01, max_lr: 0.1, step_size_up: 20, mode: exp_range, "
    "gamma: 0.98, cycle_momentum: false}",
    "CyclicLR down": "{name: CyclicLR, base_lr: [0.01], max_lr: [0.1], step_size_up: 20, "
    "step_size_down: 40, cycle_momentum: false}",
    "OneCycleLR": "{name: OneCycleLR, max_lr: 0.1, total_steps: 80}",
    "OneCycleLR epochs": "{name: OneCycleLR, max_lr: 0.1, epochs: 8, steps_per_epoch: 10}",
    "WarmupMultiStepLR": "{name: WarmupMultiStepLR, milestones: [40, 60], warmup_iters: 20}",
    "WarmupCosineLR": "{name: WarmupCosineLR, warmup_iters: 20}",
}


def curve(config):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.solver.optimizer.lr)
    schedule = build_schedule(config.solver.schedule, optimizer, config.solver.max_iter)
    found = []
    for _ in range(config.solver.max_iter):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("block", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("batch", [4, 32])
def test_every_schedule_has_k_times_the_rate_at_the_same_image(scaled, block, batch):
    overrides = [f"solver.schedule={block}", "solver.max_iter=80", "solver.optimizer.lr=0.1"]
    plain, other = curve(scaled(*overrides)), curve(scaled(*overrides, batch=batch))
    k = batch / 16
    assert len(other) == 80 / k
    # At the iterations that both have: every fourth of the longer, or every second of the plain.
    same = other[:: round(1 / k)] if k < 1 else other
    expected = [k * rate for rate in (plain if k < 1 else plain[:: round(k)])]
    # The phases of OneCycleLR end one step early, which is not the same image.
    tolerance = 0.08 * max(expected) if "OneCycle" in block else 1e-9
    assert same == pytest.approx(expected, abs=tolerance)


class MarkedSchedule(torch.optim.lr_scheduler.LRScheduler):
    def __init__(
        self,
        optimizer,
        *,
        half_life: Iterations | None = None,
        knots: list[Iterations] | None = None,
        floor: LearningRate = 0.0,
        cycles: Count = 1,
        depth: int = 3,
    ):
        super().__init__(optimizer)


class UnmarkedSchedule(torch.optim.lr_scheduler.LRScheduler):
    def __init__(self, optimizer, *, half_life: int, cycles: Count = 1, gamma: float = 1):
        super().__init__(optimizer)


class UnannotatedSchedule(torch.optim.lr_scheduler.LRScheduler):
    def __init__(self, optimizer, *, half_life, keep=True):
        super().__init__(optimizer)


class CountingSchedule(torch.optim.lr_scheduler.LRScheduler):
    def __init__(self, optimizer, *, cycles: Count = 4, gamma: float = 1, restart: bool = True):
        super().__init__(optimizer)


class EverySoOften(HookBase):
    def __init__(self, *, period: int = 5, start: Iterations = 0, rate: LearningRate = 0.0):
        self.period = period


@pytest.fixture
def own_components(monkeypatch):
    """Components of a project, registered for one test."""
    for registry, components in (
        (
            SCHEDULE_REGISTRY,
            [MarkedSchedule, UnmarkedSchedule, UnannotatedSchedule, CountingSchedule],
        ),
        (HOOK_REGISTRY, [EverySoOften]),
    ):
        list(registry)  # filled first
        monkeypatch.setattr(registry, "_components", dict(registry._components))
        for component in components:
            registry.register(component)


@pytest.mark.usefixtures("own_components")
def test_a_schedule_of_a_project_is_scaled_by_the_marks_of_its_signature(scaled):
    block = "{name: MarkedSchedule, half_life: 10, knots: [2, 4], floor: 0.5, cycles: 3}"
    schedule = scaled(f"solver.schedule={block}", batch=8).solver.schedule
    expected = {"half_life": 20, "knots": [4, 8], "floor": 0.25, "cycles": 3, "depth": 3}
    assert schedule == {"name": "MarkedSchedule", **expected}


@pytest.mark.usefixtures("own_components")
@pytest.mark.parametrize(
    "block",
    ["{name: UnmarkedSchedule, half_life: 10}", "{name: UnannotatedSchedule, half_life: [10]}"],
)
def test_a_schedule_whose_integers_are_not_marked_is_refused_with_what_to_write(scaled, block):
    with pytest.raises(ConfigError, match=r"half_life counts iterations.*detlite\.ranges\.Iter"):
        scaled(f"solver.schedule={block}", batch=8)


@pytest.mark.usefixtures("own_components")
def test_a_schedule_that_says_it_counts_no_iterations_is_taken(scaled):
    schedule = scaled("solver.schedule={name: CountingSchedule}", batch=8).solver.schedule
    assert schedule == {"name": "CountingSchedule", "cycles": 4, "gamma": 1, "restart": True}


@pytest.mark.usefixtures("own_components")
def test_hooks_of_a_project_are_scaled_by_their_period_and_by_marks(scaled):
    block = "{name: EverySoOften, period: 5, start: 100, rate: 0.5}"
    (hook,) = scaled(f"train.hooks=[{block}]", batch=8).train.hooks
    assert (hook.period, hook.start, hook.rate) == (10, 200, 0.25)


def test_every_schedule_of_torch_that_a_config_can_name_is_known():
    """A schedule that a later torch brings must be looked at, not scaled wrongly."""
    schedules = {
        component
        for component in vars(torch.optim.lr_scheduler).values()
        if isinstance(component, type)
        and issubclass(component, torch.optim.lr_scheduler.LRScheduler)
        and not component.__name__.startswith("_")
    }
    lr_scheduler = torch.optim.lr_scheduler
    need_code = {
        lr_scheduler.LRScheduler,
        lr_scheduler.LambdaLR,
        lr_scheduler.MultiplicativeLR,
        lr_scheduler.SequentialLR,
        lr_scheduler.ChainedScheduler,
        lr_scheduler.ReduceLROnPlateau,  # needs a metric
    }
    assert schedules - need_code == set(_OF_TORCH)
