"""Optimizer and schedule of a checkpoint under a config that has changed since."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from detlite import CheckpointError
from detlite.config.schema import ParameterGroup
from detlite.registry import Block
from detlite.solver import FreshSolver, build_optimizer, build_schedule, scale_rates

SGD = {"name": "SGD", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
ADAMW = {"name": "AdamW", "lr": 0.1, "betas": [0.9, 0.99], "weight_decay": 0.01, "amsgrad": False}


def solver(optimizer, schedule, max_iter=6, frozen=(), **grouping):
    """A model of two layers, its optimizer as it is before the first step, and the schedule."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    block = Block(optimizer)
    built = build_optimizer(block, model, **grouping)
    schedule_of = partial(build_schedule, Block(schedule), max_iter=max_iter)
    return model, FreshSolver.of(built, block, schedule_of), schedule_of(built)


def steps(model, optimizer, schedule, number):
    """Make steps; the rates that each was made with."""
    rates = []
    for _ in range(number):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.zero_grad()
        (model(torch.ones(5, 3)) ** 2).sum().backward()
        optimizer.step()
        schedule.step()
    return rates


def resumed(before, after, done=3, lr_factor=1.0):
    """Make steps with one solver, and give another what it has reached."""
    model, fresh, schedule = before
    steps(model, fresh.optimizer, schedule, done)
    state = copy.deepcopy(fresh.optimizer.state_dict())
    other, solver, other_schedule = after
    other.load_state_dict(model.state_dict())
    groups, schedule_state = solver.after(done, lr_factor)
    solver.optimizer.load_state_dict(solver.with_groups(state, groups))
    other_schedule.load_state_dict(schedule_state)
    return other, solver.optimizer, other_schedule


SCHEDULES = [
    {"name": "WarmupCosineLR", "warmup_iters": 2},
    {"name": "WarmupMultiStepLR", "milestones": [2, 5], "warmup_iters": 1},
    {"name": "StepLR", "step_size": 2},
    {"name": "MultiStepLR", "milestones": [2, 5]},
    {"name": "ExponentialLR", "gamma": 0.8},
    {"name": "CosineAnnealingLR", "T_max": 9, "eta_min": 0.001},
    {"name": "CosineAnnealingWarmRestarts", "T_0": 4},
    {"name": "CyclicLR", "base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3},
    {"name": "OneCycleLR", "max_lr": 0.2, "total_steps": 9},
    {"name": "PolynomialLR", "total_iters": 7},
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda block: block["name"])
def test_after_a_change_rates_are_those_of_an_uninterrupted_new_schedule(schedule):
    before = solver(SGD, {"name": "WarmupCosineLR", "warmup_iters": 1}, max_iter=6)
    changed = solver({**SGD, "lr": 0.3}, schedule, max_iter=9)
    model, optimizer, own = resumed(before, changed)
    whole, fresh, expected = solver({**SGD, "lr": 0.3}, schedule, max_iter=9)
    expected_rates = steps(whole, fresh.optimizer, expected, 9)
    assert steps(model, optimizer, own, 6) == expected_rates[3:]
    momenta = [group["momentum"] for group in optimizer.param_groups]
    assert momenta == [group["momentum"] for group in fresh.optimizer.param_groups]


def test_a_longer_cosine_does_not_stay_at_rate_0():
    cosine = {"name": "WarmupCosineLR", "warmup_iters": 0}
    model, optimizer, schedule = resumed(
        solver(SGD, cosine, max_iter=3), solver(SGD, cosine, max_iter=6)
    )
    rates = steps(model, optimizer, schedule, 3)
    assert rates[0][0] == pytest.approx(0.05)
    assert rates[2][0] > 0


def test_options_are_the_new_ones_and_momentum_is_kept():
    constant = {"name": "ConstantLR", "factor": 1.0}
    before, after = solver(SGD, constant), solver({**SGD, "weight_decay": 0.5}, constant)
    _, optimizer, _ = resumed(before, after)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5]
    old = before[1].optimizer.state_dict()["state"]
    new = optimizer.state_dict()["state"]
    assert all(torch.equal(new[i]["momentum_buffer"], old[i]["momentum_buffer"]) for i in old)


def test_rates_that_going_back_has_lowered_stay_lower():
    for schedule in SCHEDULES:
        _, optimizer, own = resumed(
            solver(SGD, SCHEDULES[0]), solver(SGD, schedule, max_iter=9), lr_factor=0.5
        )
        _, plain, _ = resumed(solver(SGD, SCHEDULES[0]), solver(SGD, schedule, max_iter=9))
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == [pytest.approx(0.5 * group["lr"]) for group in plain.param_groups]
        assert own.base_lrs


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
def test_going_back_also_lowers_rates_that_replace_the_optimizers(name):
    block = next(block for block in SCHEDULES if block["name"] == name)
    _, fresh, schedule = solver(SGD, block)
    scale_rates(fresh.optimizer, schedule, 0.5)
    rates = []
    for _ in range(5):
        fresh.optimizer.step()
        schedule.step()
        rates.append(fresh.optimizer.param_groups[0]["lr"])
    _, whole, expected = solver(SGD, block)
    for rate in rates:
        whole.optimizer.step()
        expected.step()
        assert rate == pytest.approx(0.5 * whole.optimizer.param_groups[0]["lr"])


def test_parameters_keep_their_state_by_name_when_groups_change():
    schedule = SCHEDULES[0]
    before = solver(ADAMW, schedule, frozen=["0.weight"])
    rules = [ParameterGroup(match="2.*", lr_factor=0.1)]
    after = solver(ADAMW, schedule, parameter_groups=rules, weight_decay_norm=0.0)
    model, optimizer, own = resumed(before, after)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: state["exp_avg"] for p, state in optimizer.state.items()}
    old_names = {id(p): name for name, p in before[0].named_parameters()}
    old = {old_names[id(p)]: s["exp_avg"] for p, s in before[1].optimizer.state.items()}
    assert found.keys() == old.keys() == {"0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    assert all(torch.equal(found[name], old[name]) for name in old)
    assert len(optimizer.param_groups) == 3
    # That of the layer which was frozen begins now.
    steps(model, optimizer, own, 1)
    assert optimizer.state[model.get_parameter("0.weight")]["step"] == 1


def test_a_state_that_the_new_options_cannot_go_on_with_is_refused():
    before, after = (solver({**ADAMW, "amsgrad": on}, SCHEDULES[0]) for on in (False, True))
    with pytest.raises(CheckpointError, match=r"'AdamW'.*cannot go on.*max_exp_avg_sq"):
        resumed(before, after)


def test_a_state_without_names_serves_the_same_groups_only():
    model, fresh, schedule = solver(SGD, SCHEDULES[0])
    steps(model, fresh.optimizer, schedule, 2)
    state = fresh.optimizer.state_dict()
    for group in state["param_groups"]:
        del group["param_names"]
    _, same, _ = solver({**SGD, "lr": 0.3}, SCHEDULES[0])
    assert same.has_parameters_of(state)
    moved = same.with_groups(state, same.after(2)[0])
    assert moved["state"].keys() == state["state"].keys()
    _, other, _ = solver(SGD, SCHEDULES[0], weight_decay_norm=0.0)
    assert not other.has_parameters_of(state)
    with pytest.raises(CheckpointError, match=r"older version.*\[6\].*\[4, 2\]"):
        other.with_groups(state, other.after(2)[0])


def test_a_schedule_that_has_ended_is_refused():
    _, fresh, _ = solver(SGD, {"name": "OneCycleLR", "max_lr": 0.2, "total_steps": 6})
    with pytest.raises(CheckpointError, match="no rate after 9 iterations"):
        fresh.after(9)
