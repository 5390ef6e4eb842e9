"""FCOS's head (Tian et al. 2019, https://arxiv.org/abs/1904.01355)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from ...ranges import Layers
from ...structures import ShapeSpec
from ..layers import NormName, by_anchor
from ..registries import HEAD_REGISTRY
from .retinanet_head import RetinaNetHead


@HEAD_REGISTRY.register
class FCOSHead(RetinaNetHead):
    """Classes, distances to the four sides, and how near a point is to its object's centre.

    The defaults are torchvision's; the centerness comes from the network of the boxes, which is
    better than from that of the classes (the paper's later version, +0.3 AP).

    Args:
        num_convs: 3x3 convolutions in each of the two networks before its last.
        norm: Normalization after each of them.
        prior_prob: The score that every point begins with.
        level_scales: Multiply what the box network says by a learned number, one a level.
        distances: What makes them positive: "relu", or "exp" (section 3.2 of the paper).
    """

    predicts_centerness = True
    bias_before_norm = True  # as the authors' weights and torchvision's have it

    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        num_anchors: int,
        num_classes: int,
        num_convs: Layers = 4,
        norm: NormName = "GN",
        prior_prob: Annotated[float, Meta(gt=0, lt=1)] = 0.01,
        level_scales: bool = False,
        distances: Literal["relu", "exp"] = "relu",
    ) -> None:
        super().__init__(
            input_shape=input_shape,
            num_anchors=num_anchors,
            num_classes=num_classes,
            num_convs=num_convs,
            norm=norm,
            prior_prob=prior_prob,
            level_scales=level_scales,
        )
        self.distances = distances
        self.centerness = nn.Conv2d(self.box_pred.in_channels, num_anchors, 3, padding=1)
        nn.init.normal_(self.centerness.weight, std=0.01)
        if self.centerness.bias is not None:
            nn.init.zeros_(self.centerness.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Levels (N, C, H, W) to logits (N, R, K), distances (N, R, 4) and centerness (N, R)."""
        logits = [self.cls_score(self.cls_subnet(x)) for x in features]
        towers = [self.box_subnet(x) for x in features]
        distances = by_anchor(self._scaled([self.box_pred(x) for x in towers]), self.code_size)
        # exp() of what a float16 can hold, whatever an untrained network says.
        positive = F.relu(distances) if self.distances == "relu" else distances.clamp(max=10).exp()
        centerness = by_anchor([self.centerness(x) for x in towers], 1).squeeze(-1)
        return by_anchor(logits, self.num_classes), positive, centerness
