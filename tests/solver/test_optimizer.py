"""Which parameters get which weight decay, and optimizers by name."""

import copy
import logging
import sys

import pytest
import torch
from torch import nn

from detlite.config.schema import ParameterGroup
from detlite.errors import ConfigError, UserError
from detlite.registry import Block
from detlite.solver import build_optimizer, parameter_groups


def small_model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Linear(4, 2))


def test_norms_and_biases_get_their_own_weight_decay():
    model = small_model()
    groups = parameter_groups(model, weight_decay_norm=0.0, weight_decay_bias=0.5)
    by_decay = {group.get("weight_decay"): {id(p) for p in group["params"]} for group in groups}
    conv, batch_norm, group_norm, linear = model
    assert by_decay == {
        None: {id(conv.weight), id(linear.weight)},
        0.0: {id(p) for p in (*batch_norm.parameters(), *group_norm.parameters())},
        0.5: {id(conv.bias), id(linear.bias)},
    }


def test_each_trained_parameter_is_in_one_group_once():
    model = small_model()
    model[0].requires_grad_(False)
    model.append(nn.Linear(4, 2))
    model[4].weight = model[3].weight
    listed = [id(p) for group in parameter_groups(model) for p in group["params"]]
    assert sorted(listed) == sorted({id(p) for p in model.parameters() if p.requires_grad})


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adam", "RMSprop", "NAdam"])
def test_every_optimizer_of_torch_works_by_its_name(name):
    optimizer = build_optimizer(Block(name=name, lr=0.5, weight_decay=0.1), small_model())
    assert type(optimizer) is getattr(torch.optim, name)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}


def test_an_unknown_optimizer_is_told_with_the_nearest_name():
    with pytest.raises(ConfigError, match="no optimizer named 'AdamWW'; did you mean 'AdamW'"):
        build_optimizer(Block(name="AdamWW"), small_model())


def test_a_wholly_frozen_model_cannot_be_trained():
    with pytest.raises(ValueError, match="no parameter that needs a gradient"):
        build_optimizer(Block(name="SGD", lr=0.1), small_model().requires_grad_(False))


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_rules_multiply_what_the_optimizer_says(name):
    model = small_model()
    optimizer = build_optimizer(
        Block(name=name, lr=0.5, weight_decay=0.1),
        model,
        weight_decay_norm=0.0,
        parameter_groups=[
            ParameterGroup(match="0.*", lr_factor=0.2, weight_decay_factor=3.0),
            ParameterGroup(match="3.bias", weight_decay=0.7),
        ],
    )
    found = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    conv, batch_norm, _, linear = model
    assert found[id(conv.weight)] == found[id(conv.bias)] == pytest.approx((0.1, 0.3))
    assert found[id(batch_norm.weight)] == (0.5, 0.0)
    assert found[id(linear.weight)] == (0.5, 0.1)
    assert found[id(linear.bias)] == (0.5, 0.7)


def test_a_step_moves_a_parameter_by_its_own_rate():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    rules = [ParameterGroup(match="1.*", lr_factor=0.25)]
    optimizer = build_optimizer(Block(name="SGD", lr=0.5), model, parameter_groups=rules)
    before = [p.item() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    moved = [b - p.item() for b, p in zip(before, model.parameters(), strict=True)]
    assert moved == pytest.approx([0.5, 0.125])


def test_the_state_of_an_optimizer_fits_one_of_a_model_alike():
    rules = [ParameterGroup(match="*.weight", lr_factor=0.5)]
    optimizers = []
    for _ in range(2):
        model = small_model()
        optimizers.append(
            build_optimizer(Block(name="AdamW", lr=0.1), model, parameter_groups=rules)
        )
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.1)
    first, second = optimizers
    first.step()
    second.load_state_dict(first.state_dict())
    assert [g["name"] for g in second.param_groups] == [g["name"] for g in first.param_groups]
    second.step()
    for ours, theirs in zip(first.state.values(), second.state.values(), strict=True):
        assert ours["exp_avg"].shape == theirs["exp_avg"].shape
        assert theirs["step"] == 2


def test_the_groups_are_logged_where_they_are_not_the_plain_ones(caplog):
    caplog.set_level(logging.INFO)
    build_optimizer(Block(name="SGD", lr=0.1), small_model(), weight_decay_norm=0.0)
    assert not caplog.records
    rules = [ParameterGroup(match="3.*", lr_factor=0.5)]
    build_optimizer(Block(name="SGD", lr=0.1), small_model(), parameter_groups=rules)
    (record,) = caplog.records
    _, _, _, others, own = record.getMessage().splitlines()
    assert others.split() == ["0,", "1,", "2", "6", "0.000M", "0.1", "x", "1", "0"]
    assert own.split() == ["3", "2", "0.000M", "0.05", "x", "0.5", "0"]


def test_a_rule_about_what_the_optimizer_lacks_is_refused():
    rules = [ParameterGroup(match="0.*", weight_decay_factor=2.0)]
    with pytest.raises(ConfigError, match="weight_decay of parameters, and optimizer 'Rprop' has"):
        build_optimizer(Block(name="Rprop", lr=0.1), small_model(), parameter_groups=rules)


def test_muon_moves_convolutions_orthogonally_and_all_else_as_nadamw_does():
    model = small_model()
    optimizer = build_optimizer(Block(name="Muon", lr=0.1, weight_decay=0.0), model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()
    moved = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    # The first step is a multiple of U V^T of the gradient, up to the iteration's own tolerance
    # of singular values between 0.7 and 1.2; its root mean square is 0.2 of the rate.
    step = moved["0.weight"].flatten(1)
    singular = torch.linalg.svdvals(step) / (0.1 * 0.2 * step.shape[1] ** 0.5)
    assert ((singular > 0.6) & (singular < 1.3)).all(), singular
    u, _, v = torch.linalg.svd(model[0].weight.grad.flatten(1), full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(step.flatten(), -(u @ v).flatten(), dim=0)
    assert cosine > 0.98
    # A first step of Adam's kind is the sign of the gradient.
    shift = moved["1.bias"]
    assert torch.equal(shift.sign(), -model[1].bias.grad.sign())
    assert shift.abs().max() < 1.1 * shift.abs().min()


@pytest.mark.parametrize("has_bf16", [False, True])
def test_muon_computes_in_bf16_only_where_the_hardware_does(monkeypatch, has_bf16):
    monkeypatch.setattr("detlite.solver.muon.computes_bf16", lambda device: (has_bf16, ""))
    model = nn.Linear(8, 8, bias=False)
    optimizer = build_optimizer(Block(name="Muon", lr=0.1, weight_decay=0.0), model)
    before = model.weight.detach().clone()
    model.weight.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    step = (model.weight.detach() - before) / 0.1
    # Steps in bf16 have 8 bits, but for the rounding of the weights that they are added to.
    rounded = step / (0.2 * 8**0.5)
    assert torch.allclose(rounded, rounded.bfloat16().float(), atol=1e-5, rtol=0) == has_bf16


def test_muon_goes_on_with_its_momentum_after_a_load():
    def step(model, optimizer, seed):
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()

    model, other = small_model(), small_model()
    block = Block(name="Muon", lr=0.1)
    optimizer = build_optimizer(block, model)
    step(model, optimizer, 0)
    other.load_state_dict(model.state_dict())
    resumed = build_optimizer(block, other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer, 1)
    step(other, resumed, 1)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_without_timm_muon_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.optim.muon", None)
    with pytest.raises(UserError, match=r"Muon' needs the package timm.*pip install"):
        build_optimizer(Block(name="Muon"), small_model())
