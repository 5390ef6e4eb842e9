"""Focal loss for dense detection (Lin et al. 2017, https://arxiv.org/abs/1708.02002)."""

from torch import Tensor

from ...ops import sigmoid_focal_loss
from ...ranges import Fraction, NonNegativeFloat
from ..interfaces import ClassificationLoss
from ..registries import LOSS_REGISTRY


@LOSS_REGISTRY.register
class SigmoidFocalLoss(ClassificationLoss):
    """Binary cross-entropy in which well-classified anchors fade out (eq. 5 of the paper).

    Args:
        alpha: Weight of the positives in [0, 1]; the negatives weigh ``1 - alpha``.
        gamma: Strength of the fading; 0 leaves the plain cross-entropy.
    """

    def __init__(self, *, alpha: Fraction = 0.25, gamma: NonNegativeFloat = 2.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Sum the loss of logits (R, K) and classes (R,); K background, -1 ignored."""
        return sigmoid_focal_loss(logits, classes, self.alpha, self.gamma)
