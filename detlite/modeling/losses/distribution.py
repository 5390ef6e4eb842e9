"""Distribution focal loss (Li et al. 2020, https://arxiv.org/abs/2006.04388)."""

import torch.nn.functional as F
from torch import Tensor

from ...ranges import NonNegativeFloat
from ..interfaces import BoxLoss
from ..registries import LOSS_REGISTRY


@LOSS_REGISTRY.register
class DistributionFocalLoss(BoxLoss):
    """Cross-entropy of a side's distribution with the two whole numbers around its distance.

    Eq. 6 of the paper. It goes into a detector's ``distribution_loss`` beside a loss of the boxes,
    with the box coder ``DistributionBoxCoder``; the paper's weight is 0.25, that of its GIoU 2.

    Args:
        weight: Factor of the loss.
    """

    compares = "deltas"

    def __init__(self, *, weight: NonNegativeFloat = 0.25) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Loss (P,), a mean over the sides, of logits (P, 4 * (n + 1)) and distances (P, 4)."""
        logits = predicted.unflatten(-1, (4, -1)).flatten(0, 1)
        distances = target.flatten()
        last = logits.shape[1] - 1
        below = distances.detach().floor().clamp(0, last - 1)
        share = distances - below
        lower = F.cross_entropy(logits, below.long(), reduction="none")
        upper = F.cross_entropy(logits, below.long() + 1, reduction="none")
        losses = lower * (1 - share) + upper * share
        return self.weight * losses.unflatten(0, (-1, 4)).mean(dim=1)
