"""Distances between deltas."""

import torch
from torch import Tensor

from ...ranges import NonNegativeFloat
from ..interfaces import BoxLoss
from ..registries import LOSS_REGISTRY


@LOSS_REGISTRY.register
class SmoothL1Loss(BoxLoss):
    """Squared near zero, absolute beyond (Fast R-CNN, eq. 3).

    Args:
        beta: Where the one becomes the other; 0 is the plain absolute difference.
        weight: Factor of the loss.
    """

    compares = "deltas"

    def __init__(self, *, beta: NonNegativeFloat = 0.0, weight: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        self.beta = beta
        self.weight = weight

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Loss (P,) of deltas (P, 4), summed over the four."""
        distance = (predicted - target).abs()
        if self.beta > 0:
            near = 0.5 * distance**2 / self.beta
            distance = torch.where(distance < self.beta, near, distance - 0.5 * self.beta)
        return self.weight * distance.sum(dim=1)


@LOSS_REGISTRY.register
class L1Loss(SmoothL1Loss):
    """The absolute difference.

    Args:
        weight: Factor of the loss.
    """

    def __init__(self, *, weight: NonNegativeFloat = 1.0) -> None:
        super().__init__(beta=0.0, weight=weight)
