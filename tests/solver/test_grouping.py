"""Which parameters learn at which rate, with hand-worked factors and timm's layer-wise decay."""

import pytest
import timm
import timm.optim
import torch
from torch import nn

from detlite.config.schema import ParameterGroup
from detlite.errors import ConfigError
from detlite.modeling import BACKBONE_REGISTRY, Backbone
from detlite.solver import parameter_groups
from detlite.solver.layer_decay import layers_above


class Tower(Backbone):
    """A backbone of an embedding, two layers, and an activation without parameters."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1))
        self.first = nn.Linear(1, 1)
        self.activation = nn.ReLU()
        self.second = nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1))

    def output_shape(self):
        return {}

    def forward(self, images):
        return {}


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Tower()
        self.head = nn.Linear(1, 1)


def by_name(model, groups):
    """Each parameter's group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group for group in groups for p in group["params"]}


def factors(model, **arguments):
    groups = parameter_groups(model, **arguments)
    return {name: group["lr_factor"] for name, group in by_name(model, groups).items()}


def test_the_rate_falls_by_the_decay_with_every_layer_towards_the_image():
    found = factors(Detector(), layer_decay=0.5)
    assert found == {
        # The last layer of the backbone is one below the head; the activation is none.
        "head.weight": 1.0,
        "head.bias": 1.0,
        "backbone.second.0.weight": 0.5,
        "backbone.second.0.bias": 0.5,
        "backbone.second.1.weight": 0.5,
        "backbone.second.1.bias": 0.5,
        "backbone.first.weight": 0.25,
        "backbone.first.bias": 0.25,
        "backbone.position": 0.25,
    }


def test_layer_decay_of_a_resnet_is_that_of_timm():
    theirs = timm.create_model("resnet18", num_classes=2)
    names = {id(parameter): name for name, parameter in theirs.named_parameters()}
    expected = {
        ".".join(names[id(p)].split(".")[:2]): group["lr_scale"]
        for group in timm.optim.param_groups_layer_decay(theirs, layer_decay=0.7)
        for p in group["params"]
    }
    ours = nn.ModuleDict(
        {
            "backbone": BACKBONE_REGISTRY.build(
                {"name": "ResNet", "depth": 18, "norm": "BN", "freeze_at": 0}
            ),
            "head": nn.Linear(2, 2),
        }
    )
    found = factors(ours, layer_decay=0.7)
    assert found["head.weight"] == expected["fc.weight"] == 1
    assert found["backbone.stem.conv1.weight"] == pytest.approx(expected["conv1.weight"])
    assert found["backbone.stem.conv1.norm.bias"] == pytest.approx(expected["bn1.bias"])
    for stage in range(1, 5):
        for block in range(2):
            block_factors = {
                factor
                for name, factor in found.items()
                if name.startswith(f"backbone.res{stage + 1}.{block}.")
            }
            assert len(block_factors) == 1
            assert block_factors.pop() == pytest.approx(expected[f"layer{stage}.{block}"])
    assert len(set(found.values())) == 10


def test_frozen_layers_count_so_that_freezing_changes_no_rate():
    model = Detector()
    before = factors(model, layer_decay=0.5)
    model.backbone.second.requires_grad_(False)
    after = factors(model, layer_decay=0.5)
    assert after == {k: v for k, v in before.items() if "second" not in k}


def test_the_innermost_of_nested_layers_counts():
    model = Detector()
    model.backbone.layers = lambda: ["first", "second", "second.1"]
    above = layers_above(model)
    assert above["backbone.second.0.weight"] == 2
    assert above["backbone.second.1.weight"] == 1


def test_layer_decay_without_a_backbone_is_told():
    with pytest.raises(ConfigError, match=r"layer_decay needs a Backbone .* and Linear has none"):
        parameter_groups(nn.Linear(1, 1), layer_decay=0.5)


@pytest.mark.parametrize(
    ("layers", "message"),
    [(["frist"], "'frist', which is no submodule"), (["first", "first"], "one submodule twice")],
)
def test_layers_that_do_not_exist_are_told(layers, message):
    model = Detector()
    model.backbone.layers = lambda: layers
    with pytest.raises(ValueError, match=rf"Tower.layers\(\) names {message}"):
        layers_above(model)


def test_factors_of_all_matching_rules_multiply_and_the_last_weight_decay_counts():
    model = Detector()
    rules = [
        ParameterGroup(match="backbone.*", lr_factor=0.5, weight_decay=0.3),
        ParameterGroup(match=["*.first.*", "head.*"], lr_factor=0.1, weight_decay_factor=2.0),
        ParameterGroup(match="*bias", weight_decay=0.7, weight_decay_factor=3.0),
    ]
    groups = parameter_groups(
        model, rules=rules, layer_decay=0.5, weight_decay_norm=0.0, weight_decay_bias=0.0
    )
    found = {
        name: (group["lr_factor"], group.get("weight_decay"), group["weight_decay_factor"])
        for name, group in by_name(model, groups).items()
    }
    assert found == {
        "backbone.position": (0.125, 0.3, 1.0),
        "backbone.first.weight": (pytest.approx(0.0125), 0.3, 2.0),
        "backbone.first.bias": (pytest.approx(0.0125), 0.7, 6.0),
        "backbone.second.0.weight": (0.25, 0.3, 1.0),
        "backbone.second.0.bias": (0.25, 0.7, 3.0),
        "backbone.second.1.weight": (0.25, 0.3, 1.0),  # a norm's, but a rule names it
        "backbone.second.1.bias": (0.25, 0.7, 3.0),
        "head.weight": (0.1, None, 2.0),
        "head.bias": (0.1, 0.7, 6.0),
    }


def test_a_rule_reaches_a_shared_parameter_by_any_of_its_names():
    model = Detector()
    model.second_head = nn.Linear(1, 1)
    model.second_head.weight = model.head.weight
    found = factors(model, rules=[ParameterGroup(match="second_head.*", lr_factor=0.5)])
    assert found["head.weight"] == 0.5
    assert found["head.bias"] == 1.0


def test_parameters_that_are_treated_alike_are_one_group():
    (group,) = parameter_groups(Detector())
    assert group["name"] == "all"
    assert len(group["params"]) == 9
    groups = parameter_groups(Detector(), weight_decay_norm=0.0, weight_decay_bias=0.0)
    assert [group["name"] for group in groups] == ["weights", "norms and biases"]


def test_groups_are_named_by_the_modules_that_they_cover():
    rules = [ParameterGroup(match="backbone.second.*", lr_factor=0.5)]
    groups = parameter_groups(Detector(), rules=rules, weight_decay_norm=0.0)
    assert [group["name"] for group in groups] == [
        "backbone.position, backbone.first, head",
        "backbone.second weights and biases",
        "norms",  # all there are
    ]


def test_the_groups_of_two_models_alike_are_in_the_same_order():
    rules = [ParameterGroup(match="*.weight", lr_factor=0.5), ParameterGroup(match="b*.first.*")]
    first, second = (
        [
            (group["name"], list(by_name(model, [group])))
            for group in parameter_groups(model, rules=rules, layer_decay=0.9)
        ]
        for model in (Detector(), Detector())
    )
    assert first == second


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("backbone", r"'backbone' is a module, and 'backbone\.\*' matches its parameters"),
        ("backbone.frist.*", r"the nearest are backbone\.first\.\*"),
        ("x", "its parameters are in backbone, head"),
        (["head.*", "Head.*"], r"match: 'Head\.\*' matches no parameter"),
        ([], "is an empty list"),
    ],
)
def test_a_rule_that_matches_nothing_is_an_error(match, message):
    with pytest.raises(ConfigError, match=message):
        parameter_groups(Detector(), rules=[ParameterGroup(match=match)])


def test_a_rule_about_frozen_parameters_only_is_warned_of(caplog):
    model = Detector()
    model.head.requires_grad_(False)
    parameter_groups(model, rules=[ParameterGroup(match="head.*", lr_factor=2.0)])
    assert (
        "solver.parameter_groups.0.match: ['head.*'] matches frozen parameters only" in caplog.text
    )
