"""The blocks that residual networks are made of."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNorm, NormName


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network have in common; see the keys of ``ResNet``."""

    norm: NormName
    norm_eps: float
    stride_in_1x1: bool
    avg_down: bool
    groups: int
    width_per_group: int


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; the block of ResNet-18 and 34."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, style: BlockStyle) -> None:
        super().__init__()
        norm, eps = style.norm, style.norm_eps
        self.conv1 = ConvNorm(
            in_channels, channels, 3, stride=stride, norm=norm, norm_eps=eps, relu=True
        )
        self.conv2 = ConvNorm(channels, channels, 3, norm=norm, norm_eps=eps)
        self.shortcut = _shortcut(in_channels, channels, stride, style)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, channels, H / stride, W / stride)."""
        residual = self.conv2(self.conv1(x))
        return F.relu(residual + (x if self.shortcut is None else self.shortcut(x)))


class BottleneckBlock(nn.Module):
    """A 3x3 convolution between two 1x1; the block of ResNet-50 and deeper."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, style: BlockStyle) -> None:
        super().__init__()
        norm, eps, groups = style.norm, style.norm_eps, style.groups
        # ResNeXt and wide networks change the width of the 3x3 only.
        width = channels * style.width_per_group // 64 * groups
        out_channels = channels * self.expansion
        stride_1x1, stride_3x3 = (stride, 1) if style.stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(
            in_channels, width, 1, stride=stride_1x1, norm=norm, norm_eps=eps, relu=True
        )
        self.conv2 = ConvNorm(
            width, width, 3, stride=stride_3x3, groups=groups, norm=norm, norm_eps=eps, relu=True
        )
        self.conv3 = ConvNorm(width, out_channels, 1, norm=norm, norm_eps=eps)
        self.shortcut = _shortcut(in_channels, out_channels, stride, style)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, 4 * channels, H / stride, W / stride)."""
        residual = self.conv3(self.conv2(self.conv1(x)))
        return F.relu(residual + (x if self.shortcut is None else self.shortcut(x)))


class PooledConvNorm(ConvNorm):
    """A convolution of the means of 2x2 pixels; of fewer at a right or lower border of odd size."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / 2, W / 2), sizes rounded up."""
        return super().forward(F.avg_pool2d(x, 2, ceil_mode=True))


def _shortcut(
    in_channels: int, out_channels: int, stride: int, style: BlockStyle
) -> ConvNorm | None:
    if in_channels == out_channels and stride == 1:
        return None
    norm, eps = style.norm, style.norm_eps
    if style.avg_down and stride == 2:
        return PooledConvNorm(in_channels, out_channels, 1, norm=norm, norm_eps=eps)
    return ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm, norm_eps=eps)
