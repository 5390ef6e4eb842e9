import pytest
import torch
import torchvision
from torch import nn

from detlite.modeling.backbones import ResNet
from detlite.modeling.layers import FrozenBatchNorm2d
from detlite.structures import ShapeSpec

# Name in torchvision, our arguments, parameters without the classifier.
PEERS = [
    ("resnet18", {"depth": 18}, 11_176_512),
    ("resnet34", {"depth": 34}, 21_284_672),
    ("resnet50", {"depth": 50}, 23_508_032),
    ("resnet101", {"depth": 101}, 42_500_160),
    ("resnet152", {"depth": 152}, 58_143_808),
    ("resnext50_32x4d", {"depth": 50, "groups": 32, "width_per_group": 4}, 22_979_904),
    ("wide_resnet50_2", {"depth": 50, "width_per_group": 128}, 66_834_240),
]


def torchvision_features(model, images):
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    features = {}
    for i in range(1, 5):
        features[f"res{i + 1}"] = x = getattr(model, f"layer{i}")(x)
    return features


@pytest.mark.parametrize(("name", "arguments", "num_parameters"), PEERS)
def test_feature_maps_equal_torchvision(
    name, arguments, num_parameters, resnet_weights_from_torchvision, randomize_norms
):
    peer = getattr(torchvision.models, name)(weights=None)
    randomize_norms(peer)
    stages = ("res2", "res3", "res4", "res5")
    model = ResNet(norm="BN", freeze_at=0, out_features=stages, **arguments)
    model.load_state_dict(resnet_weights_from_torchvision(peer.state_dict()))
    assert sum(p.numel() for p in model.parameters()) == num_parameters
    images = torch.randn(2, 3, 64, 97, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        peer.train(training)
        model.train(training)
        with torch.no_grad():
            expected, features = torchvision_features(peer, images), model(images)
        assert list(features) == list(expected)
        for stage, value in features.items():
            assert value.isfinite().all()
            assert torch.equal(value, expected[stage])
    state = resnet_weights_from_torchvision(peer.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key])


def test_frozen_norms_equal_torchvision_in_evaluation(
    resnet_weights_from_torchvision, randomize_norms
):
    peer = torchvision.models.resnet50(
        weights=None, norm_layer=torchvision.ops.FrozenBatchNorm2d
    ).eval()
    randomize_norms(peer)
    model = ResNet(norm="FrozenBN")
    model.load_state_dict(resnet_weights_from_torchvision(peer.state_dict()))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected, features = torchvision_features(peer, images), model(images)
    assert list(features) == ["res3", "res4", "res5"]
    assert all(torch.equal(value, expected[stage]) for stage, value in features.items())


@pytest.mark.parametrize("depth", [18, 50])
def test_output_shape_tells_the_truth(depth):
    model = ResNet(depth=depth, out_features=("res5", "res2", "res4", "res3"))
    images = torch.zeros(1, 3, 64, 128)
    shapes = {
        stage: ShapeSpec(value.shape[1], 64 // value.shape[2])
        for stage, value in model(images).items()
    }
    width = 64 if depth == 18 else 256
    assert shapes == {f"res{i + 2}": ShapeSpec(width * 2**i, 4 * 2**i) for i in range(4)}
    assert list(model.output_shape().items()) == list(shapes.items())


def test_stages_that_nobody_asks_for_are_not_built():
    model = ResNet(depth=18, out_features=("res3",))
    assert [name for name, _ in model.named_children()] == ["stem", "res2", "res3"]
    assert list(model(torch.zeros(1, 3, 32, 32))) == ["res3"]


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "GN", "FrozenBN"])
@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing_stops_training_of_the_first_stages_only(freeze_at, norm):
    model = ResNet(depth=18, norm=norm, freeze_at=freeze_at)
    for i, name in enumerate(("stem", "res2", "res3", "res4", "res5")):
        stage = getattr(model, name)
        frozen = i < freeze_at
        assert all(p.requires_grad != frozen for p in stage.parameters())
        norms = {type(m) for m in stage.modules() if hasattr(m, "eps")}
        trained = {
            "BN": nn.BatchNorm2d,
            "SyncBN": nn.SyncBatchNorm,
            "GN": nn.GroupNorm,
            "FrozenBN": FrozenBatchNorm2d,
        }
        assert norms == {
            FrozenBatchNorm2d if frozen and norm != "GN" else trained[norm],
        }


def test_statistics_of_frozen_stages_stand_still_in_training():
    model = ResNet(depth=18, norm="BN", freeze_at=2).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.randn(2, 3, 64, 64))
    moved = {
        name.split(".")[0]
        for name, value in model.named_buffers()
        if not torch.equal(value, before[name])
    }
    assert moved == {"res3", "res4", "res5"}


@pytest.mark.parametrize("norm", ["BN", "FrozenBN", "GN"])
def test_every_norm_trains(norm):
    model = ResNet(depth=50, norm=norm, freeze_at=1).train()
    features = model(torch.randn(2, 3, 64, 64))
    sum(value.mean() for value in features.values()).backward()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert (gradient is None) == name.startswith("stem"), name
        assert gradient is None or (gradient.isfinite().all() and gradient.any()), name


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_a_bottleneck_strides_where_it_is_told(stride_in_1x1):
    model = ResNet(depth=50, stride_in_1x1=stride_in_1x1)
    for stage, stride in (("res2", 1), ("res3", 2), ("res4", 2), ("res5", 2)):
        first, second = getattr(model, stage)[0], getattr(model, stage)[1]
        strides = (stride, 1) if stride_in_1x1 else (1, stride)
        assert (first.conv1.stride[0], first.conv2.stride[0]) == strides
        assert first.shortcut.stride[0] == stride
        assert (second.conv1.stride[0], second.conv2.stride[0], second.shortcut) == (1, 1, None)
    shapes = [tuple(x.shape) for x in model(torch.zeros(1, 3, 64, 64)).values()]
    assert shapes == [(1, 512, 8, 8), (1, 1024, 4, 4), (1, 2048, 2, 2)]


@pytest.mark.parametrize("depth", [18, 50])
def test_zero_init_residual_begins_with_blocks_that_pass_their_input_through(depth):
    model = ResNet(depth=depth, norm="BN", freeze_at=0, zero_init_residual=True).eval()
    x = torch.rand(1, model.output_shape()["res3"].channels, 8, 8)
    assert torch.equal(model.res3[1](x), x)
    plain = ResNet(depth=depth, norm="BN", freeze_at=0).eval()
    assert not torch.allclose(plain.res3[1](x), x)


def test_convolutions_begin_as_he_et_al_2015_derive():
    model = ResNet(depth=50)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[:, 0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05), name
            assert module.bias is None


@pytest.mark.parametrize("arguments", [{"groups": 32}, {"width_per_group": 128}])
def test_shallow_networks_refuse_groups_and_widths(arguments):
    with pytest.raises(ValueError, match=r"need depth 50 or more, got depth 34, groups \d+"):
        ResNet(depth=34, **arguments)
