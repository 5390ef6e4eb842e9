"""GhostNet (Han et al. 2020, https://arxiv.org/abs/1911.11907), a small backbone for phones."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detlite import BACKBONE_REGISTRY, Backbone, ShapeSpec
from detlite.modeling.layers import ConvNorm
from detlite.ranges import PositiveFloat

Norm = Literal["BN", "SyncBN", "GN"]

# Table 1 of the paper by stride: kernel size, expanded channels, channels, whether channels are
# weighted, stride. The kernel sizes are those of the authors' code.
BLOCKS = {
    "res1": ((3, 16, 16, False, 1),),
    "res2": ((3, 48, 24, False, 2), (3, 72, 24, False, 1)),
    "res3": ((5, 72, 40, True, 2), (5, 120, 40, True, 1)),
    "res4": (
        (3, 240, 80, False, 2),
        (3, 200, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 184, 80, False, 1),
        (3, 480, 112, True, 1),
        (3, 672, 112, True, 1),
    ),
    "res5": (
        (5, 672, 160, True, 2),
        (5, 960, 160, False, 1),
        (5, 960, 160, True, 1),
        (5, 960, 160, False, 1),
        (5, 960, 160, True, 1),
    ),
}


class GhostModule(nn.Module):
    """Half of the channels by a 1x1 convolution, the other half by a cheap 3x3 depthwise one of it.

    Figure 2 of the paper with s = 2 and d = 3; ``out_channels`` must be even.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Norm, relu: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.primary = ConvNorm(in_channels, half, 1, norm=norm, relu=relu)
        self.cheap = ConvNorm(half, half, 3, groups=half, norm=norm, relu=relu)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H, W)."""
        intrinsic = self.primary(x)
        return torch.cat((intrinsic, self.cheap(intrinsic)), dim=1)


class SqueezeExcitation(nn.Module):
    """Weights of channels made of their means (Hu et al. 2017, https://arxiv.org/abs/1709.01507).

    A quarter of the channels in between and a hard sigmoid, as MobileNetV3 has them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = round_channels(channels / 4)
        self.squeeze = ConvNorm(channels, squeezed, 1, relu=True)
        self.excite = ConvNorm(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels of (N, C, H, W)."""
        return x * F.hardsigmoid(self.excite(self.squeeze(x.mean(dim=(2, 3), keepdim=True))))


class GhostBottleneck(nn.Module):
    """Two ghost modules, the first widens and the second narrows; figure 3 of the paper."""

    def __init__(
        self,
        in_channels: int,
        expanded: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        weighted: bool,
        norm: Norm,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [GhostModule(in_channels, expanded, norm=norm, relu=True)]
        if stride > 1:
            layers.append(_depthwise(expanded, kernel_size, stride, norm))
        if weighted:
            layers.append(SqueezeExcitation(expanded))
        layers.append(GhostModule(expanded, out_channels, norm=norm, relu=False))
        self.residual = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                _depthwise(in_channels, kernel_size, stride, norm),
                ConvNorm(in_channels, out_channels, 1, norm=norm),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        return self.residual(x) + self.shortcut(x)


@BACKBONE_REGISTRY.register
class GhostNet(Backbone):
    """Ghost bottlenecks in five stages; the classifier, from table 1's last 1x1 on, is left out.

    A stage is named as ResNet's of the same stride, so a neck needs no change: ``res5`` has
    stride 32.

    Args:
        width: Factor of all channels; the paper has 0.5, 1.0 and 1.3.
        norm: Normalization after each convolution.
        out_features: The stages to return; later ones than the last of them are not built.
    """

    def __init__(
        self,
        *,
        width: PositiveFloat = 1.0,
        norm: Norm = "BN",
        out_features: tuple[Literal["res2", "res3", "res4", "res5"], ...] = (
            "res3",
            "res4",
            "res5",
        ),
    ) -> None:
        super().__init__()
        if not out_features:
            raise ValueError("out_features must name a stage, got none")
        self.out_features = sorted(out_features)
        channels = round_channels(16 * width)
        self.stem = ConvNorm(3, channels, 3, stride=2, norm=norm, relu=True)
        self.stages = nn.ModuleDict()
        self._shapes: dict[str, ShapeSpec] = {}
        for i, (stage, rows) in enumerate(BLOCKS.items()):
            blocks = []
            for kernel_size, expanded, out_channels, weighted, stride in rows:
                block = GhostBottleneck(
                    channels,
                    round_channels(expanded * width),
                    round_channels(out_channels * width),
                    kernel_size=kernel_size,
                    stride=stride,
                    weighted=weighted,
                    norm=norm,
                )
                channels = round_channels(out_channels * width)
                blocks.append(block)
            self.stages[stage] = nn.Sequential(*blocks)
            self._shapes[stage] = ShapeSpec(channels, 2 ** (i + 1))
            if stage == self.out_features[-1]:
                break
        self._init_weights()

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each returned stage."""
        return {stage: self._shapes[stage] for stage in self.out_features}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, H, W) to the stages asked for."""
        x = self.stem(images)
        features = {}
        for stage, blocks in self.stages.items():
            x = blocks(x)
            if stage in self.out_features:
                features[stage] = x
        return features

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # nn.init counts a depthwise convolution's fan-out as if it were a dense one's.
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def round_channels(channels: float) -> int:
    """The nearest multiple of 4, at least 4, and not more than a tenth below ``channels``."""
    rounded = max(4, int(channels + 2) // 4 * 4)
    return rounded + 4 if rounded < 0.9 * channels else rounded


def _depthwise(channels: int, kernel_size: int, stride: int, norm: Norm) -> ConvNorm:
    return ConvNorm(channels, channels, kernel_size, stride=stride, groups=channels, norm=norm)
