"""With the same weights our ResNet, plain and in its ``d`` form, computes what timm's does."""

import re

import pytest
import timm
import torch
import torchvision

from detlite.modeling.backbones import ResNet

DEEP_STEM = {"0": "conv1", "1": "conv1.norm", "3": "conv2", "4": "conv2.norm", "6": "conv3"}
STAGES = ("res2", "res3", "res4", "res5")
D = {"stem": "deep", "avg_down": True}

# Name in timm, our arguments, parameters without the classifier.
PEERS = [
    pytest.param("resnet18", {"depth": 18}, 11_176_512, id="resnet18"),
    pytest.param("resnet34", {"depth": 34}, 21_284_672, id="resnet34"),
    pytest.param("resnet50", {"depth": 50}, 23_508_032, id="resnet50"),
    pytest.param("resnet101", {"depth": 101}, 42_500_160, id="resnet101", marks=pytest.mark.slow),
    pytest.param("resnet18d", {"depth": 18, **D}, 11_195_744, id="resnet18d"),
    pytest.param("resnet34d", {"depth": 34, **D}, 21_303_904, id="resnet34d"),
    pytest.param("resnet50d", {"depth": 50, **D}, 23_527_264, id="resnet50d"),
    pytest.param(
        "resnet101d", {"depth": 101, **D}, 42_519_392, id="resnet101d", marks=pytest.mark.slow
    ),
]


def weights_from_timm(state, is_d):
    """Timm's names to ours; the pooling of a ``d`` shortcut counts as its layer 0."""
    first = 1 if is_d else 0
    last_of_stem = "conv3" if is_d else "conv1"
    converted = {}
    for name, value in state.items():
        name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
        name = name.replace(f"downsample.{first}.", "shortcut.")
        name = name.replace(f"downsample.{first + 1}.", "shortcut.norm.")
        name = re.sub(r"^bn1", f"stem.{last_of_stem}.norm", name)
        name = re.sub(r"\bbn(\d)", r"conv\1.norm", name)
        name = re.sub(r"^conv1\.(\d)\.", lambda match: f"stem.{DEEP_STEM[match[1]]}.", name)
        name = re.sub(r"^conv1\.", "stem.conv1.", name)
        converted[name] = value
    return converted


@pytest.mark.parametrize(("name", "arguments", "num_parameters"), PEERS)
def test_feature_maps_equal_timm(name, arguments, num_parameters, randomize_norms):
    peer = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4))
    randomize_norms(peer)
    model = ResNet(norm="BN", freeze_at=0, out_features=STAGES, **arguments)
    model.load_state_dict(weights_from_timm(peer.state_dict(), name.endswith("d")))
    assert sum(p.numel() for p in model.parameters()) == num_parameters
    # An odd number of columns: the last mean of a shortcut is of fewer pixels.
    images = torch.randn(2, 3, 64, 97, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        peer.train(training)
        model.train(training)
        with torch.no_grad():
            expected, features = peer(images), model(images)
        for value, other in zip(features.values(), expected, strict=True):
            assert value.isfinite().all()
            assert torch.equal(value, other)
    state = weights_from_timm(peer.state_dict(), name.endswith("d"))
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_stride_in_the_1x1_equals_a_torchvision_whose_strides_were_moved(
    resnet_weights_from_torchvision, randomize_norms
):
    peer = torchvision.models.resnet50(weights=None)
    for layer in (peer.layer2, peer.layer3, peer.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    randomize_norms(peer)
    model = ResNet(depth=50, norm="BN", freeze_at=0, stride_in_1x1=True, out_features=STAGES)
    model.load_state_dict(resnet_weights_from_torchvision(peer.state_dict()))
    images = torch.randn(1, 3, 64, 97, generator=torch.Generator().manual_seed(0))
    peer.eval()
    with torch.no_grad():
        features = model.eval()(images)
        x = peer.maxpool(peer.relu(peer.bn1(peer.conv1(images))))
        for stage, layer in zip(STAGES, ("layer1", "layer2", "layer3", "layer4"), strict=True):
            x = getattr(peer, layer)(x)
            assert torch.equal(features[stage], x)
