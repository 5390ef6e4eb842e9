"""A head with shared convolutions and separate batch normalizations ("SepBN").

Used by NAS-FPN (Ghiasi et al. 2019, https://arxiv.org/abs/1904.07392), EfficientDet (Tan et al.
2019, https://arxiv.org/abs/1911.09070) and RTMDet (Lyu et al. 2022, https://arxiv.org/abs/2212.07784).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from detlite import HEAD_REGISTRY, Head, ShapeSpec
from detlite.modeling.layers import by_anchor, init_prior, make_norm
from detlite.ranges import Layers


class SepBNSubnet(nn.Module):
    """Convolutions that all levels share, each followed by the level's own normalization."""

    def __init__(
        self,
        channels: int,
        num_convs: int,
        num_levels: int,
        *,
        separable: bool,
        norm: Literal["BN", "SyncBN"],
    ) -> None:
        super().__init__()
        conv = _separable_conv if separable else _conv
        self.convs = nn.ModuleList(conv(channels) for _ in range(num_convs))
        self.norms = nn.ModuleList(
            nn.ModuleList(make_norm(norm, channels) for _ in range(num_convs))
            for _ in range(num_levels)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Levels (N, C, H, W) to as many of the same shapes."""
        outputs = []
        for x, norms in zip(features, self.norms, strict=True):
            for conv, norm in zip(self.convs, norms, strict=True):
                x = F.relu(norm(conv(x)), inplace=True)
            outputs.append(x)
        return outputs


@HEAD_REGISTRY.register
class SepBNHead(Head):
    """RetinaNet's head with batch normalization whose statistics are each level's own.

    Levels differ in mean and variance. A normalization that they share averages over them while
    it trains, and then fits none of them when it is evaluated.

    Args:
        num_convs: 3x3 convolutions in each of the two networks before its last.
        separable: Make them of a depthwise and a 1x1 convolution, as EfficientDet does: with 256
            channels a ninth of the work.
        norm: Normalization after each of them, one a level.
        prior_prob: The score that every anchor begins with (RetinaNet, section 4.1).
    """

    class_layers = ("cls_score",)

    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        num_anchors: int,
        num_classes: int,
        num_convs: Layers = 4,
        separable: bool = False,
        norm: Literal["BN", "SyncBN"] = "BN",
        prior_prob: Annotated[float, Meta(gt=0, lt=1)] = 0.01,
    ) -> None:
        super().__init__()
        widths = {spec.channels for spec in input_shape.values()}
        if len(widths) != 1:
            raise ValueError(f"levels must have the same number of channels, got {input_shape}")
        channels = widths.pop()
        self.num_classes = num_classes
        self.cls_subnet, self.box_subnet = (
            SepBNSubnet(channels, num_convs, len(input_shape), separable=separable, norm=norm)
            for _ in range(2)
        )
        self.cls_score = nn.Conv2d(channels, num_anchors * num_classes, 3, padding=1)
        self.box_pred = nn.Conv2d(channels, num_anchors * 4, 3, padding=1)
        for conv in (self.cls_score, self.box_pred):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)
        init_prior(self.cls_score, prior_prob)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Levels (N, C, H, W) to logits (N, R, K) and deltas (N, R, 4)."""
        logits = [self.cls_score(x) for x in self.cls_subnet(features)]
        deltas = [self.box_pred(x) for x in self.box_subnet(features)]
        return by_anchor(logits, self.num_classes), by_anchor(deltas, 4)


def _conv(channels: int, *, kernel_size: int = 3, groups: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(
        channels, channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False
    )
    # RetinaNet's 0.01 would, depthwise and then 1x1, leave a variance below the norm's eps.
    fan_in = conv.weight[0].numel()
    nn.init.normal_(conv.weight, std=(2.0 / fan_in) ** 0.5)
    return conv


def _separable_conv(channels: int) -> nn.Sequential:
    return nn.Sequential(_conv(channels, groups=channels), _conv(channels, kernel_size=1))
