"""Residual networks (He et al. 2015, https://arxiv.org/abs/1512.03385), ResNeXt and wide ones."""

from typing import Annotated, Literal

import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from ...ranges import PositiveInt
from ...structures import ShapeSpec
from ..interfaces import Backbone
from ..layers import ConvNorm, FrozenBatchNorm2d, NormName
from ..registries import BACKBONE_REGISTRY

STAGES = ("res2", "res3", "res4", "res5")
# Blocks in each stage, table 1 of the paper.
BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the block of ResNet-18 and 34."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        norm: NormName,
        stride_in_1x1: bool,
        groups: int,
        width_per_group: int,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels, 3, stride=stride, norm=norm, relu=True)
        self.conv2 = ConvNorm(channels, channels, 3, norm=norm)
        self.shortcut = _shortcut(in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, channels, H / stride, W / stride)."""
        residual = self.conv2(self.conv1(x))
        return F.relu(residual + (x if self.shortcut is None else self.shortcut(x)))


class BottleneckBlock(nn.Module):
    """A 3x3 convolution between two 1x1; the block of ResNet-50 and deeper."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        norm: NormName,
        stride_in_1x1: bool,
        groups: int,
        width_per_group: int,
    ) -> None:
        super().__init__()
        # ResNeXt and wide networks change the width of the 3x3 only.
        width = channels * width_per_group // 64 * groups
        out_channels = channels * self.expansion
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(in_channels, width, 1, stride=stride_1x1, norm=norm, relu=True)
        self.conv2 = ConvNorm(
            width, width, 3, stride=stride_3x3, groups=groups, norm=norm, relu=True
        )
        self.conv3 = ConvNorm(width, out_channels, 1, norm=norm)
        self.shortcut = _shortcut(in_channels, out_channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, 4 * channels, H / stride, W / stride)."""
        residual = self.conv3(self.conv2(self.conv1(x)))
        return F.relu(residual + (x if self.shortcut is None else self.shortcut(x)))


class Stem(nn.Module):
    """The first 7x7 convolution and pooling; stride 4."""

    def __init__(self, channels: int, norm: NormName) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels, 7, stride=2, norm=norm, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, channels, H / 4, W / 4)."""
        return F.max_pool2d(self.conv1(images), kernel_size=3, stride=2, padding=1)


@BACKBONE_REGISTRY.register
class ResNet(Backbone):
    """ResNet, ResNeXt (``groups: 32, width_per_group: 4``), wide ResNet (``width_per_group: 128``).

    Args:
        depth: Number of layers.
        norm: Normalization; "FrozenBN" keeps the statistics of pretrained weights, "BN" trains.
        freeze_at: Stages that are not trained: 0 none, 1 the stem, 2 stem and res2, up to 5.
        stride_in_1x1: Stride in the first 1x1 of a bottleneck (Caffe's weights) or in its 3x3
            (torchvision's weights).
        groups: Groups of the 3x3 in a bottleneck.
        width_per_group: Channels of a group in res2.
        out_features: Stages whose output is returned.
        zero_init_residual: Begin with blocks that pass their input through, the last norm's scale
            at 0 (Goyal et al. 2017, section 5.1); helps training from scratch.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        norm: Literal["BN", "FrozenBN", "SyncBN", "GN"] = "FrozenBN",
        freeze_at: Literal[0, 1, 2, 3, 4, 5] = 2,
        stride_in_1x1: bool = False,
        groups: PositiveInt = 1,
        width_per_group: PositiveInt = 64,
        out_features: Annotated[
            tuple[Literal["res2", "res3", "res4", "res5"], ...], Meta(min_length=1)
        ] = ("res3", "res4", "res5"),
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else BottleneckBlock
        if zero_init_residual and (norm == "FrozenBN" or freeze_at > 1):
            raise ValueError(
                "zero_init_residual needs norms that are trained, got norm FrozenBN or freeze_at "
                f"above 1 (norm {norm}, freeze_at {freeze_at}); a frozen scale would stay 0"
            )
        if block is BasicBlock and (groups, width_per_group) != (1, 64):
            raise ValueError(
                f"groups and width_per_group need depth 50 or more, got depth {depth}, "
                f"groups {groups}, width_per_group {width_per_group}"
            )
        self.out_features: list[str] = sorted(out_features)
        self.stem = Stem(64, norm)
        channels = 64
        self._shapes: dict[str, ShapeSpec] = {}
        for i, (stage, num_blocks) in enumerate(zip(STAGES, BLOCKS[depth], strict=True)):
            blocks = []
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(
                    block(
                        channels,
                        64 * 2**i,
                        stride=stride,
                        norm=norm,
                        stride_in_1x1=stride_in_1x1,
                        groups=groups,
                        width_per_group=width_per_group,
                    )
                )
                channels = 64 * 2**i * block.expansion
            setattr(self, stage, nn.Sequential(*blocks))
            self._shapes[stage] = ShapeSpec(channels, 4 * 2**i)
            if stage == self.out_features[-1]:
                break
        self._init_weights(zero_init_residual)
        self._freeze(freeze_at)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each returned stage."""
        return {stage: self._shapes[stage] for stage in self.out_features}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, H, W) to the stages asked for."""
        x = self.stem(images)
        features = {}
        for stage in self._shapes:
            x = getattr(self, stage)(x)
            if stage in self.out_features:
                features[stage] = x
        return features

    def _init_weights(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if zero_init_residual and isinstance(module, BasicBlock | BottleneckBlock):
                last = module.conv2 if isinstance(module, BasicBlock) else module.conv3
                assert last.norm is not None
                nn.init.zeros_(last.norm.weight)  # type: ignore[arg-type]

    def _freeze(self, freeze_at: int) -> None:
        for name in ("stem", *STAGES)[:freeze_at]:
            stage = getattr(self, name, None)
            if stage is not None:
                FrozenBatchNorm2d.convert(stage)
                stage.requires_grad_(False)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: NormName) -> ConvNorm | None:
    if in_channels == out_channels and stride == 1:
        return None
    return ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm)
