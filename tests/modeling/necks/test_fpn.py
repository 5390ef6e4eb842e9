from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detlite.modeling import NECK_REGISTRY
from detlite.modeling.necks import FPN
from detlite.registry import Block
from detlite.structures import ShapeSpec

CHANNELS = {"res3": 16, "res4": 24, "res5": 40}
INPUT_SHAPE = {name: ShapeSpec(c, 8 * 2**i) for i, (name, c) in enumerate(CHANNELS.items())}
LEVELS = ("p3", "p4", "p5")


def draw_features(sizes=((32, 44), (16, 22), (8, 11))):
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(2, channels, *size, generator=generator)
        for (name, channels), size in zip(CHANNELS.items(), sizes, strict=True)
    }


def build(**keys):
    return NECK_REGISTRY.build(Block(name="FPN", out_channels=32, **keys), input_shape=INPUT_SHAPE)


def copy_from_torchvision(fpn, peer):
    for i, level in enumerate(LEVELS):
        for ours, theirs in (
            (fpn.laterals[level], peer.inner_blocks[i]),
            (fpn.outputs[level], peer.layer_blocks[i]),
        ):
            ours.load_state_dict(theirs[0].state_dict(), strict=ours.norm is None)
            if ours.norm is not None:
                ours.norm.load_state_dict(theirs[1].state_dict())
    if peer.extra_blocks is not None:
        fpn.extra_levels.load_state_dict(peer.extra_blocks.state_dict())


@pytest.mark.parametrize("norm", ["", "BN", "GN"])
@pytest.mark.parametrize("source", ["p5", "res5"])
@pytest.mark.parametrize(
    "sizes", [((32, 44), (16, 22), (8, 11)), ((25, 33), (13, 17), (7, 9)), ((3, 1), (2, 1), (1, 1))]
)
def test_levels_equal_torchvision(source, sizes, norm):
    makers = {"": None, "BN": nn.BatchNorm2d, "GN": lambda channels: nn.GroupNorm(32, channels)}
    extra_channels = 32 if source == "p5" else CHANNELS["res5"]
    peer = FeaturePyramidNetwork(
        list(CHANNELS.values()), 32, LastLevelP6P7(extra_channels, 32), makers[norm]
    ).eval()
    fpn = build(norm=norm, extra_levels=Block(name="P6P7", source=source)).eval()
    copy_from_torchvision(fpn, peer)
    features = draw_features(sizes)
    with torch.no_grad():
        expected, levels = peer(OrderedDict(features)), fpn(features)
    assert list(levels) == ["p3", "p4", "p5", "p6", "p7"]
    for level, value in zip(levels.values(), expected.values(), strict=True):
        assert torch.equal(level, value)


def test_without_extra_levels_the_pyramid_ends_with_the_backbone():
    fpn = build()
    assert list(fpn(draw_features())) == list(fpn.output_shape()) == list(LEVELS)


def test_output_shape_tells_the_truth():
    fpn = build(extra_levels=Block(name="P6P7"))
    levels = fpn(draw_features(((32, 32), (16, 16), (8, 8))))
    shapes = {name: ShapeSpec(x.shape[1], 256 // x.shape[2]) for name, x in levels.items()}
    assert list(fpn.output_shape().items()) == list(shapes.items())
    assert shapes["p7"] == ShapeSpec(32, 128)


def test_levels_are_named_by_their_stride():
    input_shape = {"res2": ShapeSpec(8, 4), "res3": ShapeSpec(16, 8)}
    fpn = FPN(input_shape=input_shape, out_channels=4)
    assert fpn.output_shape() == {"p2": ShapeSpec(4, 4), "p3": ShapeSpec(4, 8)}


def test_256_channels_are_the_default_of_the_whole_pyramid():
    block = Block(name="FPN", extra_levels=Block(name="P6P7", source="p5"))
    fpn = NECK_REGISTRY.build(block, input_shape=INPUT_SHAPE)
    assert {spec.channels for spec in fpn.output_shape().values()} == {256}
    assert fpn.extra_levels.p6.weight.shape == (256, 256, 3, 3)


def test_coarse_maps_reach_fine_levels_and_not_the_other_way_round():
    fpn = build().eval()
    features = draw_features()
    before = fpn(features)
    features["res5"] = features["res5"] + 1
    after = fpn(features)
    assert all(not torch.equal(before[level], after[level]) for level in LEVELS)
    features["res3"] = features["res3"] + 1
    last = fpn(features)
    changed = [level for level in LEVELS if not torch.equal(after[level], last[level])]
    assert changed == ["p3"]


def test_convolutions_of_a_pyramid_begin_as_the_peers_do():
    fpn = build(extra_levels=Block(name="P6P7"))
    for module in fpn.modules():
        if isinstance(module, nn.Conv2d):
            bound = (3 / module.weight[0].numel()) ** 0.5
            assert module.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
            assert not module.bias.any()


@pytest.mark.parametrize("init", ["caffe2", "xavier"])
@pytest.mark.parametrize("extra_init", ["caffe2", "xavier"])
def test_the_pyramid_and_its_extra_levels_begin_as_they_are_told(init, extra_init):
    fpn = build(init=init, extra_levels=Block(name="P6P7", init=extra_init))
    for name, module in fpn.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_in, fan_out = module.weight[0].numel(), module.weight[:, 0].numel()
            told = extra_init if name.startswith("extra_levels") else init
            bound = (6 / (fan_in + fan_out) if told == "xavier" else 3 / fan_in) ** 0.5
            assert module.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
            assert not module.bias.any()
