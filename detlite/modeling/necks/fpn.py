"""Feature pyramid network (Lin et al. 2016, https://arxiv.org/abs/1612.03144)."""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ...ranges import Channels
from ...registry import Block, block_arguments
from ...structures import ShapeSpec
from ..interfaces import ExtraLevels, Neck
from ..layers import ConvNorm, InitName, NormName, init_xavier
from ..registries import EXTRA_LEVELS_REGISTRY, NECK_REGISTRY

OUT_CHANNELS = 256


@NECK_REGISTRY.register
class FPN(Neck):
    """A top-down path that adds coarse maps, which know what, to fine ones, which know where.

    Args:
        out_channels: Channels of every level.
        norm: Normalization after each convolution.
        extra_levels: What makes the levels beyond the backbone's; None for none.
        init: The first weights, but for those of ``extra_levels``, which has a key of its own:
            "caffe2" (detectron2, torchvision) or "xavier", PyTorch's ``xavier_uniform_``
            (mmdetection, ODTK).
    """

    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        out_channels: Channels = OUT_CHANNELS,
        norm: NormName = "",
        extra_levels: ExtraLevels | None = None,
        init: InitName = "caffe2",
    ) -> None:
        super().__init__()
        self.sources = {level_name(spec.stride): name for name, spec in input_shape.items()}
        self.laterals = nn.ModuleDict()
        self.outputs = nn.ModuleDict()
        self._shapes = {}
        for spec in input_shape.values():
            level = level_name(spec.stride)
            self.laterals[level] = ConvNorm(spec.channels, out_channels, 1, norm=norm)
            self.outputs[level] = ConvNorm(out_channels, out_channels, 3, norm=norm)
            self._shapes[level] = ShapeSpec(out_channels, spec.stride)
        for module in self.modules():
            if isinstance(module, ConvNorm):
                init_xavier(module, init)
        self.extra_levels = extra_levels
        stride = max(spec.stride for spec in input_shape.values())
        for i in range(extra_levels.num_levels if extra_levels else 0):
            extra = stride * 2 ** (i + 1)
            self._shapes[level_name(extra)] = ShapeSpec(out_channels, extra)

    @classmethod
    def from_config(cls, block: Block, input_shape: Mapping[str, ShapeSpec]) -> "FPN":
        """Build the extra levels, then the pyramid."""
        arguments = block_arguments(block)
        out_channels = block.get("out_channels", OUT_CHANNELS)
        if block.get("extra_levels") is not None:
            levels = {
                level_name(spec.stride): ShapeSpec(out_channels, spec.stride)
                for spec in input_shape.values()
            }
            arguments["extra_levels"] = EXTRA_LEVELS_REGISTRY.build(
                block.extra_levels, input_shape={**input_shape, **levels}, out_channels=out_channels
            )
        return cls(input_shape=input_shape, **arguments)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level, from fine to coarse."""
        return dict(self._shapes)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mix the backbone's maps (N, C, H, W) into levels of ``out_channels``."""
        levels = self._pyramid(features)
        if self.extra_levels is not None:
            extra = self.extra_levels({**features, **levels})
            levels.update(zip(list(self._shapes)[len(levels) :], extra, strict=True))
        return levels

    def _pyramid(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """The levels that have a map of the backbone, from fine to coarse."""
        inner: Tensor | None = None
        levels: dict[str, Tensor] = {}
        for level in reversed(self.sources):
            lateral = self.laterals[level](features[self.sources[level]])
            if inner is not None:
                lateral = lateral + F.interpolate(inner, size=lateral.shape[-2:], mode="nearest")
            inner = lateral
            levels[level] = self.outputs[level](inner)
        return {level: levels[level] for level in self.sources}


def level_name(stride: int) -> str:
    """What a level is called: p3 at stride 8."""
    return f"p{int(math.log2(stride))}"
