import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from detlite.modeling.backbones import ResNet
from detlite.modeling.layers import FrozenBatchNorm2d
from detlite.modeling.sync_batch_norm import SyncBatchNorm
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
            "SyncBN": SyncBatchNorm,
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


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_an_eps_of_zero_equals_torchvision(norm, resnet_weights_from_torchvision, randomize_norms):
    # As torchvision runs its published detectors of the first version.
    peer = torchvision.models.resnet18(
        weights=None, norm_layer=lambda num: torchvision.ops.FrozenBatchNorm2d(num, eps=0.0)
    ).eval()
    randomize_norms(peer)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = {}
    for eps in (0.0, 1e-2):
        model = ResNet(depth=18, norm=norm, norm_eps=eps, freeze_at=2).eval()
        state = resnet_weights_from_torchvision(peer.state_dict())
        model.load_state_dict(state, strict=norm == "FrozenBN")
        with torch.no_grad():
            features[eps] = model(images)
    with torch.no_grad():
        expected = torchvision_features(peer, images)
    for stage, value in features[0.0].items():
        torch.testing.assert_close(value, expected[stage], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(features[1e-2][stage], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["BN", "SyncBN", "GN", "FrozenBN"])
@pytest.mark.parametrize("arguments", [{"depth": 18}, {"depth": 50, "stem": "deep"}])
def test_the_eps_reaches_every_norm(norm, arguments):
    model = ResNet(norm=norm, norm_eps=1e-3, avg_down=True, **arguments)
    seen = {module.eps for module in model.modules() if hasattr(module, "eps")}
    assert seen == {1e-3}
    num_convs = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert sum(hasattr(module, "eps") for module in model.modules()) == num_convs


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
@pytest.mark.parametrize("freeze_at", [0, 2])
def test_without_batch_statistics_scale_and_shift_are_trained_alone(
    norm, freeze_at, randomize_norms
):
    model = ResNet(depth=18, norm=norm, batch_statistics="none", freeze_at=freeze_at)
    randomize_norms(model)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = [value.detach() for value in model.eval()(images).values()]
    before = {name: value.clone() for name, value in model.named_buffers()}
    # Also within a model, and after an evaluation between two steps of training.
    outer = nn.Sequential(model).eval().train()
    assert model.training
    features = outer(images)
    assert all(torch.equal(*pair) for pair in zip(features.values(), expected, strict=True))
    sum((value**2).mean() for value in features.values()).backward()
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]), name
    frozen = ("stem.", "res2.") if freeze_at else ()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in model.named_parameters() if not n.startswith(frozen or "-")}
    assert any(name.endswith("norm.weight") for name in trained)
    assert all(model.get_parameter(name).grad.any() for name in trained)


def test_no_batch_statistics_holds_from_the_beginning_and_is_not_the_default():
    for batch_statistics in ("trained", "none"):
        model = ResNet(depth=18, norm="BN", batch_statistics=batch_statistics, freeze_at=0)
        assert model.training
        assert model.res5[1].conv2.norm.training == (batch_statistics == "trained")


def test_batch_statistics_of_all_stages_train_as_torchvisions_partly_frozen_resnet(
    resnet_weights_from_torchvision, randomize_norms
):
    peer = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d,
                               trainable_layers=3)  # fmt: skip
    randomize_norms(peer)
    stages = ("res2", "res3", "res4", "res5")
    model = ResNet(depth=18, norm="BN", freeze_at=2, batch_statistics="all", out_features=stages)
    model.load_state_dict(resnet_weights_from_torchvision(peer.body.state_dict()))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = list(peer.train().body(images).values())
    features = list(model.train()(images).values())
    for value, other in zip(features, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=0)
    # The running statistics have moved alike, in frozen stages too.
    state = resnet_weights_from_torchvision(peer.body.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert state["res2.0.conv1.norm.num_batches_tracked"] == 1
    trained = {name for name, value in peer.body.named_parameters() if value.requires_grad}
    ours = {name for name, value in model.named_parameters() if value.requires_grad}
    # torchvision leaves bn1 trainable unless all five stages are, then freezes none.
    assert ours == set(resnet_weights_from_torchvision(dict.fromkeys(trained)))


@pytest.mark.parametrize("norm", ["FrozenBN", "GN"])
@pytest.mark.parametrize("batch_statistics", ["all", "none"])
def test_batch_statistics_are_refused_where_there_are_none(norm, batch_statistics):
    message = f"batch_statistics '{batch_statistics}' needs norm BN or SyncBN, got {norm}"
    with pytest.raises(ValueError, match=message):
        ResNet(norm=norm, batch_statistics=batch_statistics)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_deep_stem_and_pooled_shortcuts_freeze_and_train_like_others(depth):
    model = ResNet(depth=depth, norm="BN", freeze_at=1, stem="deep", avg_down=True).train()
    sum(value.mean() for value in model(torch.randn(2, 3, 64, 64)).values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith("stem."), name
    shapes = [spec.stride for spec in model.output_shape().values()]
    sizes = [value.shape[-1] for value in model(torch.zeros(1, 3, 64, 64)).values()]
    assert [64 // size for size in sizes] == shapes == [8, 16, 32]
