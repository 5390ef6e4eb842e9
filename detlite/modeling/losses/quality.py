"""Losses that teach a class's score how good the box is."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ...ranges import Fraction, NonNegativeFloat
from ..interfaces import QualityLoss
from ..registries import LOSS_REGISTRY


@LOSS_REGISTRY.register
class QualityFocalLoss(QualityLoss):
    """Cross-entropy with the IoU as the aim, fading out where the score comes near to it.

    Generalized focal loss (Li et al. 2020, https://arxiv.org/abs/2006.04388), eq. 5: in place of
    the focal loss and of centerness it brings ATSS with ResNet-50 from 39.2 to 39.9 AP.

    Args:
        beta: Strength of the fading; 2 in the paper.
    """

    def __init__(self, *, beta: NonNegativeFloat = 2.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(  # type: ignore[override]  # see QualityLoss
        self, logits: Tensor, classes: Tensor, qualities: Tensor
    ) -> Tensor:
        """Sum the loss of logits (R, K), classes (R,), K background, -1 ignored, and qualities."""
        targets, _ = _targets(logits, classes, qualities)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        distance = (targets - logits.sigmoid()).abs()
        return _sum(losses * distance**self.beta, classes)


@LOSS_REGISTRY.register
class VarifocalLoss(QualityLoss):
    """Cross-entropy with the IoU as the aim, weighted by it; only the background fades out.

    VarifocalNet (Zhang et al. 2020, https://arxiv.org/abs/2008.13367), eq. 2. That detector, of
    which it is one part of three, has 41.6 AP with ResNet-50 in 12 epochs.

    Args:
        alpha: Weight of the background; 0.75 in the paper.
        gamma: Strength of its fading; 2 in the paper.
    """

    def __init__(self, *, alpha: Fraction = 0.75, gamma: NonNegativeFloat = 2.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def forward(  # type: ignore[override]  # see QualityLoss
        self, logits: Tensor, classes: Tensor, qualities: Tensor
    ) -> Tensor:
        """Sum the loss of logits (R, K), classes (R,), K background, -1 ignored, and qualities."""
        targets, is_class = _targets(logits, classes, qualities)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        # A foreground without any overlap weighs as background, as in the authors' code.
        is_good = is_class & (targets > 0)
        faded = self.alpha * logits.sigmoid() ** self.gamma
        return _sum(losses * torch.where(is_good, targets, faded), classes)


def _targets(logits: Tensor, classes: Tensor, qualities: Tensor) -> tuple[Tensor, Tensor]:
    """Aims (R, K), the quality at the class and 0 elsewhere, and where a class is (R, K) bool."""
    is_class = classes[:, None] == torch.arange(logits.shape[1], device=classes.device)
    return torch.where(is_class, qualities.to(logits.dtype)[:, None], 0.0), is_class


def _sum(losses: Tensor, classes: Tensor) -> Tensor:
    """The sum of losses (R, K) of the anchors that are not ignored."""
    return torch.where(classes[:, None] >= 0, losses, 0.0).sum()
