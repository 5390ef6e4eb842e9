"""What residual networks begin with."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import ConvNorm, NormName


class Stem(nn.Module):
    """The first 7x7 convolution and pooling; stride 4."""

    def __init__(self, channels: int, norm: NormName, norm_eps: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, channels, 7, stride=2, norm=norm, norm_eps=norm_eps, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, channels, H / 4, W / 4)."""
        return F.max_pool2d(self.conv1(images), kernel_size=3, stride=2, padding=1)


class DeepStem(nn.Module):
    """Three 3x3 convolutions and pooling; stride 4 (He et al. 2018, figure 2 c).

    https://arxiv.org/abs/1812.01187
    """

    def __init__(self, channels: int, norm: NormName, norm_eps: float) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = ConvNorm(3, half, 3, stride=2, norm=norm, norm_eps=norm_eps, relu=True)
        self.conv2 = ConvNorm(half, half, 3, norm=norm, norm_eps=norm_eps, relu=True)
        self.conv3 = ConvNorm(half, channels, 3, norm=norm, norm_eps=norm_eps, relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, channels, H / 4, W / 4)."""
        x = self.conv3(self.conv2(self.conv1(images)))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
