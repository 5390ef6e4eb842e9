"""mmdetection 3.3.0 says what its form computes; the paper's form is worked by hand."""

import pytest
import torch
from torch import Tensor, nn

from detlite.modeling import NECK_REGISTRY
from detlite.registry import Block
from detlite.structures import ShapeSpec

CHANNELS = {"res3": 4, "res4": 6, "res5": 8}
INPUT_SHAPE = {name: ShapeSpec(c, 8 * 2**i) for i, (name, c) in enumerate(CHANNELS.items())}
SIZES = ((13, 18), (7, 9), (4, 5))
LEVELS = ("p3", "p4", "p5", "p6", "p7")

# What mmdet.models.necks.PAFPN([4, 6, 8], 5, num_outs=5, add_extra_convs=...,
# relu_before_extra_convs=True) gave in float64, its ConvModule being the convolution alone, of
# weights and features by `sines`, numbered as in `fill`: of each level the sum, the sum of absolute
# values, and the first, the middle and the last value.
PYRAMID = {
    "p3": (
        -261.44685489370266,
        318.7338557965947,
        0.008522061186550,
        -0.250177563304,
        -0.058307848,
    ),
    "p4": (
        -57.19542505543675,
        72.01241149129905,
        -0.115113622315905,
        -0.051959320120,
        -0.204683992,
    ),
    "p5": (
        -10.160951850390049,
        17.238040832041335,
        -0.03612154373973,
        0.035712537915,
        -0.015241795,
    ),
}
EXTRA = {
    "res5": {
        "p6": (
            0.9982329039381362,
            5.461708639812612,
            -0.148257362495,
            -0.0165180712696,
            0.441558553,
        ),
        "p7": (
            0.3438932601722853,
            1.2727056730207194,
            -0.323613588602,
            0.0251383053868,
            0.106559284,
        ),
    },
    "p5": {
        "p6": (
            1.8929397603421787,
            4.268374182025935,
            -0.158287601447,
            0.1432902598408,
            0.060497535,
        ),
        "p7": (
            0.053052682285060965,
            1.217508591620829,
            -0.280437852192,
            0.0019501297,
            0.030175255993,
        ),
    },
}


def sines(shape: tuple[int, ...], phase: float) -> Tensor:
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return 0.2 * torch.sin(i * i + phase).reshape(shape)


def fill(neck: nn.Module) -> None:
    layers = [
        *neck.laterals.values(),
        *neck.outputs.values(),
        *neck.downsamples.values(),
        *neck.fusions.values(),
        neck.extra_levels.p6,
        neck.extra_levels.p7,
    ]
    with torch.no_grad():
        for number, layer in enumerate(layers):
            layer.weight.copy_(sines(tuple(layer.weight.shape), number))
            layer.bias.copy_(sines(tuple(layer.bias.shape), number + 0.5))


@pytest.mark.parametrize("source", ["res5", "p5"])
def test_levels_equal_mmdetections_numbers(source):
    extra = Block(name="P6P7", source=source)
    block = Block(name="PAFPN", out_channels=5, extra_levels=extra)
    neck = NECK_REGISTRY.build(block, input_shape=INPUT_SHAPE).double()
    fill(neck)
    features = {
        name: sines((1, channels, *size), 20 + i)
        for i, ((name, channels), size) in enumerate(zip(CHANNELS.items(), SIZES, strict=True))
    }
    levels = neck(features)
    assert list(levels) == list(neck.output_shape()) == list(LEVELS)
    assert {tuple(x.shape[-2:]) for x in levels.values()} == {*SIZES, (2, 3), (1, 2)}
    for level, expected in {**PYRAMID, **EXTRA[source]}.items():
        x = levels[level].flatten()
        found = [x.sum(), x.abs().sum(), x[0], x[len(x) // 2], x[-1]]
        assert [value.item() for value in found] == pytest.approx(expected, rel=1e-6), level


def test_the_papers_path_climbs_from_outputs_and_each_convolution_has_a_relu():
    shapes = {f"res{i}": ShapeSpec(1, 2**i) for i in (3, 4, 5)}
    block = Block(name="PAFPN", out_channels=1, bottom_up="paper")
    neck = NECK_REGISTRY.build(block, input_shape=shapes)
    for module in neck.modules():
        if isinstance(module, nn.Conv2d):  # the value in the middle alone
            nn.init.zeros_(module.weight)
            middle = module.kernel_size[0] // 2
            module.weight.data[0, 0, middle, middle] = 1
    neck.fusions["p4"].weight.data *= -1
    # The features 1, 2, 4 make P5 = 4, P4 = 6, P3 = 7.
    features = {
        f"res{i}": torch.full((1, 1, 2 ** (5 - i), 2 ** (5 - i)), 2.0 ** (i - 3)) for i in (3, 4, 5)
    }
    levels = neck(features)
    # N4 = relu(-(6 + 7)) = 0, and N5 = 4 + N4: with mmdetection's path it would be 4 + 13.
    assert {name: x.unique().tolist() for name, x in levels.items()} == {
        "p3": [7.0],
        "p4": [0.0],
        "p5": [4.0],
    }
    neck.bottom_up = "mmdet"
    assert neck(features)["p5"].unique().tolist() == [17.0]


def test_the_finest_level_now_reaches_the_coarsest():
    block = Block(name="PAFPN", out_channels=8)
    neck = NECK_REGISTRY.build(block, input_shape=INPUT_SHAPE)
    features = {
        name: torch.rand(1, channels, *size)
        for (name, channels), size in zip(CHANNELS.items(), SIZES, strict=True)
    }
    before = neck(features)["p5"]
    features["res3"] = features["res3"] + 1
    assert not torch.equal(neck(features)["p5"], before)
