"""What the summed losses are divided by. The peers differ here, so it is a choice."""

from typing import Literal

import torch
from torch import Tensor

from ..ranges import Fraction, PositiveFloat
from .interfaces import LossNormalizer
from .registries import LOSS_NORMALIZER_REGISTRY


@LOSS_NORMALIZER_REGISTRY.register
class MovingAverageNormalizer(LossNormalizer):
    """Divide by a moving average of the batch's positives, as detectron2 does.

    The average is a buffer: it is saved, and a resumed run goes on with it.

    Args:
        momentum: Share of the old average that a step keeps.
        initial: The average before the first step.
    """

    average: Tensor

    def __init__(self, *, momentum: Fraction = 0.9, initial: PositiveFloat = 100.0) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("average", torch.tensor(float(initial)))

    @torch.no_grad()
    def forward(self, num_positives: Tensor) -> Tensor:
        """Weights (N,) for foreground anchors (N,); moves the average in training only."""
        if self.training:
            positives = num_positives.sum().clamp(min=1).to(self.average)
            self.average.lerp_(positives, 1 - self.momentum)
        return (1 / self.average).expand(len(num_positives))


@LOSS_NORMALIZER_REGISTRY.register
class BatchNormalizer(LossNormalizer):
    """Divide by the positives of the batch.

    Args:
        at_least_one_per: What counts as one positive where it has none: the "batch", or each
            "image" (mmdetection).
    """

    def __init__(self, *, at_least_one_per: Literal["batch", "image"] = "batch") -> None:
        super().__init__()
        self.at_least_one_per = at_least_one_per

    def forward(self, num_positives: Tensor) -> Tensor:
        """Weights (N,) for foreground anchors (N,)."""
        if self.at_least_one_per == "image":
            num_positives = num_positives.clamp(min=1)
        return (1 / num_positives.sum().clamp(min=1)).expand(len(num_positives))


@LOSS_NORMALIZER_REGISTRY.register
class PerImageNormalizer(LossNormalizer):
    """Divide each image's loss by its own positives, then average over images (torchvision)."""

    def forward(self, num_positives: Tensor) -> Tensor:
        """Weights (N,) for foreground anchors (N,)."""
        return 1 / (num_positives.clamp(min=1) * len(num_positives))
