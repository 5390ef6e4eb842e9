"""RetinaNet's head (Lin et al. 2017, section 4)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from msgspec import Meta
from torch import Tensor, nn

from ...ranges import Layers
from ...structures import ShapeSpec
from ..interfaces import Head
from ..layers import ConvNorm, NormName, by_anchor, init_prior
from ..registries import HEAD_REGISTRY


@HEAD_REGISTRY.register
class RetinaNetHead(Head):
    """Two small networks, one for classes and one for boxes, shared by all levels.

    Args:
        num_convs: 3x3 convolutions in each network before its last.
        norm: Normalization after each of them.
        prior_prob: The score that every anchor begins with, so that the many backgrounds do not
            drown the first steps (section 4.1).
        level_scales: Multiply what the box network says by a learned number, one a level (FCOS,
            Tian et al. 2019, section 3.2); for anchors of one size a cell.
    """

    class_layers = ("cls_score",)
    bias_before_norm: ClassVar[bool] = False

    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        num_anchors: int,
        num_classes: int,
        num_convs: Layers = 4,
        norm: NormName = "",
        prior_prob: Annotated[float, Meta(gt=0, lt=1)] = 0.01,
        level_scales: bool = False,
        code_size: int = 4,
    ) -> None:
        super().__init__()
        channels = {spec.channels for spec in input_shape.values()}
        if len(channels) != 1:
            raise ValueError(f"levels must have the same number of channels, got {input_shape}")
        width = channels.pop()
        self.num_classes = num_classes
        self.code_size = code_size
        self.cls_subnet = _subnet(width, num_convs, norm, self.bias_before_norm)
        self.box_subnet = _subnet(width, num_convs, norm, self.bias_before_norm)
        self.cls_score = nn.Conv2d(width, num_anchors * num_classes, 3, padding=1)
        self.box_pred = nn.Conv2d(width, num_anchors * code_size, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        init_prior(self.cls_score, prior_prob)
        self.scales = nn.Parameter(torch.ones(len(input_shape))) if level_scales else None

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels (N, C, H, W) to logits (N, R, K) and deltas (N, R, B)."""
        logits = [self.cls_score(self.cls_subnet(x)) for x in features]
        deltas = self._scaled([self.box_pred(self.box_subnet(x)) for x in features])
        return by_anchor(logits, self.num_classes), by_anchor(deltas, self.code_size)

    def _scaled(self, levels: list[Tensor]) -> list[Tensor]:
        if self.scales is None:
            return levels
        return [level * scale for level, scale in zip(levels, self.scales, strict=True)]


def _subnet(channels: int, num_convs: int, norm: NormName, bias: bool) -> nn.Sequential:
    convs = (
        ConvNorm(channels, channels, 3, norm=norm, relu=True, bias=bias or None)
        for _ in range(num_convs)
    )
    return nn.Sequential(*convs)
