"""Asymmetric loss (Ridnik et al. 2020, https://arxiv.org/abs/2009.14119)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from detlite import LOSS_REGISTRY, ClassificationLoss
from detlite.ranges import Fraction, NonNegativeFloat

# Where p_m is 0, a power below 1 of it would have an infinite derivative.
EPS = 1e-8


@LOSS_REGISTRY.register
class AsymmetricLoss(ClassificationLoss):
    """Focal loss whose positives and negatives fade by themselves, and easy negatives entirely.

    With p = sigmoid(logit) and p_m = max(p - margin, 0), the paper's definition is::

        positive   -(1 - p) ** gamma_pos * log(p)
        negative   -p_m ** gamma_neg * log(1 - p_m)

    Args:
        gamma_pos: Fading of well-classified positives; 0 for none.
        gamma_neg: Fading of well-classified negatives.
        margin: Negatives with a score up to this have no loss.
    """

    def __init__(
        self,
        *,
        gamma_pos: NonNegativeFloat = 0.0,
        gamma_neg: NonNegativeFloat = 4.0,
        margin: Fraction = 0.05,
    ) -> None:
        super().__init__()
        self.gamma_pos = gamma_pos
        self.gamma_neg = gamma_neg
        self.log_margin = math.log(margin) if margin > 0 else -math.inf

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Sum the loss of logits (R, K) and classes (R,); K background, -1 ignored."""
        positive = classes[:, None] == torch.arange(logits.shape[1], device=logits.device)
        # All in logarithms, so that no score of 0 or 1 gives an infinite loss or derivative.
        log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
        positives = -torch.exp(self.gamma_pos * log_not_p) * log_p
        # 1 - p_m = min(1 - p + margin, 1)
        log_not_pm = torch.logaddexp(log_not_p, logits.new_full((), self.log_margin)).clamp(max=0)
        p_m = -torch.expm1(log_not_pm)
        negatives = -(p_m.clamp(min=EPS) ** self.gamma_neg) * log_not_pm
        loss = torch.where(positive, positives, negatives)
        return loss.masked_fill((classes == -1)[:, None], 0).sum()
