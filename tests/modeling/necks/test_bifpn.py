"""effdet 0.4.1 (rwightman/efficientdet-pytorch) says what a BiFPN computes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from detlite.modeling import NECK_REGISTRY
from detlite.registry import Block
from detlite.structures import ShapeSpec

# res4 has the levels' channels, and so no 1x1 convolution.
CHANNELS = {"res3": 4, "res4": 6, "res5": 8}
INPUT_SHAPE = {name: ShapeSpec(c, 8 * 2**i) for i, (name, c) in enumerate(CHANNELS.items())}
SIZES = ((13, 18), (7, 9), (4, 5))
LEVELS = ("p3", "p4", "p5", "p6", "p7")

# What effdet.efficientdet.BiFpn gave in float64 (fpn_channels 6, fpn_cell_repeats 2, pad_type "",
# redundant_bias False, image_size (104, 140), bifpn_config with this weight method, else as
# EfficientDet-D0), of weights and features by `sines`, in the order of `fill`: of each level the
# sum, the sum of absolute values, and the first, the middle and the last value.
EFFDET = {
    ("fast", False): [
        (-44.689024983835814, 161.52965243555334, -0.08568501820, 0.05262191204, 0.04231463737),
        (-4.78982713152215, 9.969674831056057, -0.006120868718, -0.05306784935, -0.008717128759),
        (-1.3574516121952211, 3.236410546469293, 0.0057128274477, 0.0302495437, 0.005034325388),
        (-0.26250975123865683, 10.323375945747962, -0.1694827996, 0.1538718794, 0.2012670088567),
        (-0.5021567060629458, 1.6229632173054311, -0.1123614380, -0.2345528138, -0.08326341674),
    ],
    ("fast", True): [
        (0.022416954512836984, 1144.1515264951463, -0.03985404981, 0.95483038074, 0.73206612237),
        (-1.1062784515039699, 282.67300098337887, 2.08829982158, -0.0824644356, -0.86406284695),
        (0.45720265763225054, 98.35479339994151, 1.97006340969, 0.33169034953, -0.03126926849),
        (-0.07394870783773633, 30.607149865669953, 0.239479492, 0.374925127525, -0.0471442619),
        (-0.013496198330392284, 11.665030236652864, 1.54340624, -1.00130635402, -0.9016703740),
    ],
    ("softmax", False): [
        (-44.62043530495922, 114.25521370298557, -0.06350565380, 0.02399385593, 0.0057180256794),
        (-4.090628236443333, 13.367531083508215, 0.02208950156, -0.03659339507, -0.04587406210),
        (-1.1954137895807064, 4.347998770408461, 0.01722551171, 0.03207202580, -0.00650021075),
        (-0.41307955095778526, 8.196924784655566, -0.13781576729, 0.13980562120, 0.168740606276),
        (-0.4469281472651723, 1.1144234643677107, -0.05663116983, -0.17917681983, -0.0884314953),
    ],
    ("sum", False): [
        (-6.729948748733314, 5747.531240526676, 3.31477298937, 6.068198115341376, 0.62288974802),
        (-559.4378092940351, 3192.796764816687, 25.5055814190, -7.45553074808, 2.93676184686),
        (-182.48072111955548, 1906.0236694312052, 5.77892163485, -10.6529988544, 1.66726024339),
        (-183.33930469746807, 774.0449240333265, -18.835758892405, 6.96998593145, -8.7092470002),
        (-22.037938320678066, 131.89117693105587, -7.73414919169, -6.93705950250, -1.4972619190),
    ],
}


def sines(shape: tuple[int, ...], phase: float) -> Tensor:
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(i * i + phase).reshape(shape)


def conv_and_norm(lateral: nn.Module) -> list[nn.Module]:
    return [] if isinstance(lateral, nn.Identity) else [lateral, lateral.norm]


def of_node(node: nn.Module, lateral: nn.Module) -> list[nn.Module | Tensor]:
    weights = [] if node.fusion_weights is None else [node.fusion_weights]
    return [
        *weights,
        *conv_and_norm(lateral),
        node.depthwise,
        node.pointwise,
        node.pointwise.norm,
    ]


def fill(neck: nn.Module) -> None:
    """Each node's weights, the convolution of its own map, its convolutions: down, then up."""
    parts = conv_and_norm(neck.extra)
    for layer in neck.layers:
        for i in reversed(range(len(layer.down_nodes))):
            parts += of_node(layer.down_nodes[i], layer.down_laterals[i])
        for node, lateral in zip(layer.up_nodes, layer.up_laterals, strict=True):
            parts += of_node(node, lateral)
    with torch.no_grad():
        for n, part in enumerate(parts):
            if isinstance(part, Tensor):
                part.copy_(sines(tuple(part.shape), n) + 0.4)
            elif isinstance(part, nn.Conv2d):
                part.weight.copy_(0.6 * sines(tuple(part.weight.shape), n))
            else:
                shape = tuple(part.weight.shape)
                part.weight.copy_(1 + 0.3 * sines(shape, n))
                part.bias.copy_(0.3 * sines(shape, n + 0.1))
                part.running_mean.copy_(0.3 * sines(shape, n + 0.2))
                part.running_var.copy_(1 + 0.3 * sines(shape, n + 0.3))


def build(channels: int = 6, **keys) -> nn.Module:
    block = Block(name="BiFPN", out_channels=channels, **keys)
    return NECK_REGISTRY.build(block, input_shape=INPUT_SHAPE)


def features_of(sizes) -> dict[str, Tensor]:
    return {
        name: sines((1, channels, *size), 50 + i)
        for i, ((name, channels), size) in enumerate(zip(CHANNELS.items(), sizes, strict=True))
    }


@pytest.mark.parametrize(("fusion", "training"), EFFDET)
def test_levels_equal_effdets_numbers(fusion, training):
    neck = build(num_layers=2, fusion=fusion).double().train(training)
    fill(neck)
    with torch.no_grad():
        levels = neck(features_of(SIZES))
    assert list(levels) == list(neck.output_shape()) == list(LEVELS)
    assert [tuple(x.shape[-2:]) for x in levels.values()] == [*SIZES, (2, 3), (1, 2)]
    for (name, level), expected in zip(levels.items(), EFFDET[fusion, training], strict=True):
        x = level.flatten()
        found = [value.item() for value in (x.sum(), x.abs().sum(), x[0], x[len(x) // 2], x[-1])]
        assert found == pytest.approx(expected, rel=1e-6), name


def test_norms_are_those_of_the_authors_code():
    norms = [module for module in build().modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("sizes", [((1, 1), (1, 1), (1, 1)), ((25, 3), (13, 2), (7, 1))])
@pytest.mark.parametrize("num_levels", [3, 5])
def test_levels_have_the_sizes_of_the_contract_and_every_parameter_a_gradient(sizes, num_levels):
    # GN: one value a channel has no batch statistics.
    neck = build(norm="GN", num_levels=num_levels, num_layers=2).double()
    levels = neck(features_of(sizes))
    for name, (height, width) in neck.grid_sizes((8 * sizes[0][0], 8 * sizes[0][1])).items():
        assert levels[name].shape == (1, 6, height, width)
    sum(x.square().sum() for x in levels.values()).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None] == []


def test_a_compiled_copy_computes_the_same():
    neck = build(num_layers=1).double().eval()
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(neck), backend="eager", fullgraph=True)
    with torch.no_grad():
        expected, found = neck(features_of(SIZES)), compiled(features_of(SIZES))
    assert all(torch.equal(found[level], value) for level, value in expected.items())


@pytest.mark.parametrize(
    ("shapes", "keys", "message"),
    [
        ((8, 32), {}, r"strides double, got strides \[8, 32\]"),
        ((8, 16, 32), {"num_levels": 2}, "num_levels must be at least .* 3, got 2"),
    ],
)
def test_maps_that_make_no_pyramid_are_refused(shapes, keys, message):
    input_shape = {f"res{i}": ShapeSpec(4, stride) for i, stride in enumerate(shapes)}
    with pytest.raises(ValueError, match=message):
        NECK_REGISTRY.build(Block(name="BiFPN", **keys), input_shape=input_shape)
