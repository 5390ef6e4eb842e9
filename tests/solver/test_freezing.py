"""Freezing by patterns of names."""

import logging

import pytest
from torch import nn

from detlite.errors import ConfigError
from detlite.modeling import BACKBONE_REGISTRY
from detlite.solver import freeze_parameters, frozen_norms


def small_model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def trained(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def resnet(**keys):
    return BACKBONE_REGISTRY.build({"name": "ResNet", "depth": 18, "norm": "BN"} | keys)


def test_what_a_pattern_matches_is_frozen_and_nothing_else():
    model = small_model()
    assert freeze_parameters(model, ["2.*", "0.*"]) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert trained(model) == ["1.weight", "1.bias"]


def test_no_pattern_freezes_nothing(caplog):
    model = small_model()
    assert freeze_parameters(model, []) == []
    assert len(trained(model)) == 6
    assert not caplog.records


def test_a_shared_parameter_is_frozen_by_any_of_its_names():
    model = small_model()
    model.append(nn.Linear(4, 2))
    model[3].weight = model[2].weight
    assert freeze_parameters(model, ["3.weight"]) == ["3.weight"]
    assert not model[2].weight.requires_grad


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("2", r"solver\.freeze\.1: '2' matches no parameter .* and '2\.\*' matches its"),
        ("*running_mean", "matches buffers only, such as 1.running_mean, which are never trained"),
        ("1.wieght", "the nearest are 1.weight"),
        ("backbone.*", "its parameters are in 0, 1, 2"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error_and_freezes_nothing(pattern, message):
    model = small_model()
    with pytest.raises(ConfigError, match=message):
        freeze_parameters(model, ["0.*", pattern])
    assert len(trained(model)) == 6


def test_the_list_is_logged_by_modules_with_counts_or_in_full(caplog):
    caplog.set_level(logging.INFO)
    backbone = resnet(freeze_at=0)
    freeze_parameters(backbone, ["stem.*", "res2*"])
    # 9,408 + 128 of the stem; four 3x3 of 64 x 64 with norms of 128.
    assert "15 parameters with 0.158M numbers are not trained: stem (3), res2 (12)" in caplog.text
    freeze_parameters(backbone, ["stem.conv1.norm.*"])
    assert "2 parameters with 0.000M numbers are not trained: stem.conv1.norm.w" in caplog.text


def test_norms_whose_parameters_are_all_frozen_keep_their_statistics():
    model = small_model()
    assert frozen_norms(model) == []
    freeze_parameters(model, ["1.weight"])
    assert frozen_norms(model) == []
    freeze_parameters(model, ["1.bias"])
    assert frozen_norms(model) == [model[1]]


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4, affine=False),  # nothing in it was frozen
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),  # without statistics to keep
    ],
)
def test_norms_without_frozen_parameters_or_statistics_are_left_alone(norm):
    assert frozen_norms(nn.Sequential(norm).requires_grad_(False)) == []


def test_a_backbone_with_batch_statistics_of_all_keeps_collecting_them():
    model = nn.ModuleDict({"backbone": resnet(batch_statistics="all", freeze_at=5)})
    model["other"] = nn.BatchNorm2d(4).requires_grad_(False)
    assert frozen_norms(model) == [model["other"]]
    model["backbone"] = resnet(freeze_at=0).requires_grad_(False)
    assert len(frozen_norms(model)) == 21
