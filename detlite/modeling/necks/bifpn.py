"""Bidirectional feature pyramid (Tan et al. 2019, https://arxiv.org/abs/1911.09070)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn, ones

from ...ranges import Channels, PositiveLayers
from ...structures import ShapeSpec
from ..interfaces import Neck
from ..layers import ConvNorm, init_xavier
from ..registries import NECK_REGISTRY
from .fpn import level_name

FusionName = Literal["fast", "softmax", "sum"]
BiFPNNorm = Literal["BN", "SyncBN", "GN"]

# Of the authors' code, as are the places of norms and activations.
_NORM_EPS = 1e-3
_BN_MOMENTUM = 0.01
_FUSION_EPS = 1e-4


@NECK_REGISTRY.register
class BiFPN(Neck):
    """Layers of a top-down and a bottom-up path, whose sums have weights that are learnt.

    Levels beyond the backbone's are made by max pooling. The defaults are those of EfficientDet-D0,
    which has 34.6 AP on COCO's test-dev; D1 to D6 have 88, 112, 160, 224, 288 and 384 channels and
    4, 5, 6, 7, 7 and 8 layers, D3 has 47.5 AP. The ablation (table 4, from memory) has 44.4 AP for
    EfficientNet-B3 with it and 40.3 with an FPN.

    Args:
        out_channels: Channels of every level.
        num_layers: How often both paths are run.
        num_levels: Levels in all, the backbone's and coarser ones.
        fusion: Weights of the maps of a sum: "fast", their positive parts divided by their sum
            (section 3.3); "softmax" of them; or "sum", none.
        norm: Normalization after each 1x1 convolution. "BN" cannot train on a single image of which
            the coarsest level has one pixel; "GN" can.
    """

    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        out_channels: Channels = 64,
        num_layers: PositiveLayers = 3,
        num_levels: Annotated[int, Meta(ge=2, le=20)] = 5,
        fusion: FusionName = "fast",
        norm: BiFPNNorm = "BN",
    ) -> None:
        super().__init__()
        strides = [spec.stride for spec in input_shape.values()]
        if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
            raise ValueError(f"BiFPN needs maps whose strides double, got strides {strides}")
        if num_levels < len(strides):
            raise ValueError(
                f"num_levels must be at least the number of the backbone's maps, {len(strides)}, "
                f"got {num_levels}"
            )
        self.sources = list(input_shape)
        strides = [strides[0] * 2**i for i in range(num_levels)]
        self._shapes = {level_name(s): ShapeSpec(out_channels, s) for s in strides}
        channels = [spec.channels for spec in input_shape.values()]
        further = num_levels > len(channels)
        self.extra = _lateral(channels[-1], out_channels, norm) if further else None
        channels += [out_channels] * (num_levels - len(channels))
        layers = []
        for _ in range(num_layers):
            layers.append(BiFPNLayer(channels, out_channels, fusion, norm))
            channels = [out_channels] * num_levels
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = _BN_MOMENTUM

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level, from fine to coarse."""
        return dict(self._shapes)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mix the backbone's maps (N, C, H, W) into levels of ``out_channels``."""
        maps = [features[name] for name in self.sources]
        for i in range(len(self._shapes) - len(maps)):
            coarsest = self.extra(maps[-1]) if i == 0 and self.extra is not None else maps[-1]
            maps.append(_halve(coarsest))
        return dict(zip(self._shapes, self.layers(maps), strict=True))


class BiFPNLayer(nn.Module):
    """One top-down and one bottom-up path (figure 2 d).

    Where a map has other channels than the levels, each path has a 1x1 convolution of its own.
    """

    def __init__(
        self, channels: Sequence[int], out_channels: int, fusion: FusionName, norm: BiFPNNorm
    ) -> None:
        super().__init__()
        last = len(channels) - 1
        self.down_laterals = nn.ModuleList(_lateral(c, out_channels, norm) for c in channels)
        self.up_laterals = nn.ModuleList(_lateral(c, out_channels, norm) for c in channels[1:])
        self.down_nodes = nn.ModuleList(_Node(2, out_channels, fusion, norm) for _ in range(last))
        self.up_nodes = nn.ModuleList(
            _Node(3 if i < last else 2, out_channels, fusion, norm) for i in range(1, last + 1)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, C, H, W) from fine to coarse to as many of ``out_channels``."""
        last = len(maps) - 1
        down = [self.down_laterals[i](x) for i, x in enumerate(maps)]
        for i in range(last - 1, -1, -1):
            size = down[i].shape[-2:]
            above = F.interpolate(down[i + 1], size=size, mode="nearest")
            down[i] = self.down_nodes[i]([down[i], above])
        levels = [down[0]]
        for i in range(1, last + 1):
            inputs = [self.up_laterals[i - 1](maps[i]), down[i], _halve(levels[-1])]
            # Nothing comes down to the coarsest level.
            levels.append(self.up_nodes[i - 1](inputs if i < last else inputs[::2]))
        return levels


class _Node(nn.Module):
    """A weighted sum, swish, a depthwise and a pointwise convolution, a normalization."""

    def __init__(self, num_inputs: int, channels: int, fusion: FusionName, norm: BiFPNNorm) -> None:
        super().__init__()
        self.fusion = fusion
        self.fusion_weights = nn.Parameter(ones(num_inputs)) if fusion != "sum" else None
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = ConvNorm(channels, channels, 1, norm=norm, norm_eps=_NORM_EPS)
        # A depthwise convolution's fan-out is its fan-in: Glorot's bound is that of "caffe2".
        init_xavier(self.depthwise, "caffe2")
        init_xavier(self.pointwise, "xavier")

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (N, C, H, W) of one size to one."""
        if self.fusion_weights is None:
            fused = sum(maps[1:], start=maps[0])
        else:
            weights = self._normalized(self.fusion_weights)
            fused = sum(
                (x * weight for x, weight in zip(maps[1:], weights[1:], strict=True)),
                start=maps[0] * weights[0],
            )
        result: Tensor = self.pointwise(self.depthwise(F.silu(fused)))
        return result

    def _normalized(self, weights: Tensor) -> Tensor:
        if self.fusion == "softmax":
            return weights.softmax(dim=0)
        positive = F.relu(weights)
        return positive / (positive.sum() + _FUSION_EPS)


def _lateral(in_channels: int, out_channels: int, norm: BiFPNNorm) -> nn.Module:
    """A 1x1 convolution to the levels' channels, where they differ."""
    if in_channels == out_channels:
        return nn.Identity()
    lateral = ConvNorm(in_channels, out_channels, 1, norm=norm, norm_eps=_NORM_EPS)
    init_xavier(lateral, "xavier")
    return lateral


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
