"""Which parameters get which weight decay, and optimizers by name."""

import pytest
import torch
from torch import nn

from detlite.errors import ConfigError
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
