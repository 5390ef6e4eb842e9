"""Learning rates, against torch's own schedulers and hand-worked numbers."""

import pytest
import torch

from detlite import SCHEDULE_REGISTRY
from detlite.errors import ConfigError
from detlite.registry import Block
from detlite.solver import WarmupCosineLR, WarmupMultiStepLR, build_schedule


def rates(make, steps, lr=0.1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_multi_step_falls_at_its_milestones_as_torch_has_it():
    ours = rates(lambda o: WarmupMultiStepLR(o, milestones=[3, 6], warmup_iters=0), 9)
    torchs = rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 6]), 9)
    assert ours == pytest.approx(torchs)


def test_warmup_rises_from_its_factor_in_a_straight_line():
    found = rates(
        lambda o: WarmupMultiStepLR(o, milestones=[], warmup_iters=4, warmup_factor=0.2), 6, lr=1.0
    )
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_warmup_is_that_of_detectron2_at_its_published_numbers():
    # lr 0.01, 1000 iterations from 0.001: iteration 500 has 0.01 * (0.0005 + 0.5).
    found = rates(lambda o: WarmupMultiStepLR(o, milestones=[60000], warmup_iters=1000), 501, 0.01)
    assert found[0] == pytest.approx(1e-5)
    assert found[500] == pytest.approx(0.01 * (0.001 * 0.5 + 0.5))


def test_cosine_falls_as_torch_has_it():
    ours = rates(lambda o: WarmupCosineLR(o, 20, warmup_iters=0), 20)
    torchs = rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20), 20)
    assert ours == pytest.approx(torchs)


def test_cosine_ends_at_its_end_factor():
    found = rates(lambda o: WarmupCosineLR(o, 10, warmup_iters=2, end_factor=0.1), 12, lr=1.0)
    assert found[2] == pytest.approx(1.0)
    assert found[10:] == pytest.approx([0.1, 0.1])


def test_a_schedule_of_torch_works_by_its_name():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = SCHEDULE_REGISTRY.build({"name": "StepLR", "step_size": 5}, optimizer=optimizer)
    assert isinstance(schedule, torch.optim.lr_scheduler.StepLR)


def test_milestones_must_rise():
    with pytest.raises(ValueError, match=r"must rise, got \[6, 3\]"):
        rates(lambda o: WarmupMultiStepLR(o, milestones=[6, 3]), 1)


def test_each_parameter_group_keeps_its_own_base_rate():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    WarmupMultiStepLR(optimizer, milestones=[], warmup_iters=2, warmup_factor=0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])


def grouped_optimizer(*factors):
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": factor, "lr_factor": factor}
        for factor in factors
    ]
    return torch.optim.SGD(groups, momentum=0.9)


@pytest.mark.parametrize(
    "block",
    [
        Block(name="OneCycleLR", max_lr=0.4, total_steps=10),
        Block(name="CyclicLR", base_lr=0.1, max_lr=0.4, step_size_up=3),
        Block(name="WarmupMultiStepLR", milestones=[4], warmup_iters=2),
        Block(name="LinearLR", total_iters=4),
    ],
)
def test_every_schedule_keeps_the_ratio_of_the_groups(block):
    optimizer = grouped_optimizer(1.0, 0.25)
    schedule = build_schedule(block, optimizer, 10)
    seen = set()
    for _ in range(8):
        plain, reduced = (group["lr"] for group in optimizer.param_groups)
        assert reduced == pytest.approx(0.25 * plain)
        seen.add(plain)
        optimizer.step()
        schedule.step()
    assert len(seen) > 1
    assert max(seen) <= block.get("max_lr", 1.0) + 1e-9


def test_rates_that_are_given_by_group_are_taken_as_they_are():
    optimizer = grouped_optimizer(1.0, 0.25)
    build_schedule(Block(name="OneCycleLR", max_lr=[0.5, 0.2], total_steps=9), optimizer, 9)
    assert [group["max_lr"] for group in optimizer.param_groups] == [0.5, 0.2]


def test_a_schedule_that_waits_for_a_metric_is_refused():
    with pytest.raises(ConfigError, match="'ReduceLROnPlateau' waits for a metric"):
        build_schedule(Block(name="ReduceLROnPlateau"), grouped_optimizer(1.0), 10)


def test_a_rate_that_steps_once_an_epoch_is_that_of_its_first_iteration():
    def in_steps(step_iters):
        return lambda o: WarmupCosineLR(o, 24, warmup_iters=6, step_iters=step_iters)

    smooth, stepped = rates(in_steps(1), 24), rates(in_steps(4), 24)
    assert stepped == [smooth[i // 4 * 4] for i in range(24)]
    assert len(set(stepped)) == 6


def test_a_step_of_no_iterations_is_refused():
    with pytest.raises(ValueError, match="step_iters must be at least 1, got 0"):
        rates(lambda o: WarmupMultiStepLR(o, milestones=[], step_iters=0), 1)
