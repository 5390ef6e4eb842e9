"""Losses of whole images against the probabilities of their classes."""

from typing import Annotated

import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor

from ...ranges import Fraction
from ..interfaces import ImageClassificationLoss
from ..registries import LOSS_REGISTRY

Smoothing = Annotated[float, Meta(ge=0, lt=1)]


@LOSS_REGISTRY.register
class CrossEntropyLoss(ImageClassificationLoss):
    """Cross-entropy of the softmax, as torch's of the same name.

    Args:
        label_smoothing: Share of each target that is spread evenly over all classes (Szegedy et
            al. 2015, https://arxiv.org/abs/1512.00567, section 7).
    """

    def __init__(self, *, label_smoothing: Smoothing = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss (N,) of logits (N, K) and probabilities (N, K)."""
        return F.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.label_smoothing
        )


@LOSS_REGISTRY.register
class BinaryCrossEntropyLoss(ImageClassificationLoss):
    """Cross-entropy of each class by itself, the mean over classes, as timm's of the same name.

    "ResNet strikes back" trains with it (Wightman et al. 2021, https://arxiv.org/abs/2110.00476).

    Args:
        label_smoothing: Share of each target that is spread evenly over all classes.
        target_threshold: Targets above it become 1, the others 0: mixed images have several
            classes. None: targets stay as they are.
    """

    def __init__(
        self, *, label_smoothing: Smoothing = 0.0, target_threshold: Fraction | None = None
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.target_threshold = target_threshold

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss (N,) of logits (N, K) and probabilities (N, K)."""
        smoothing = self.label_smoothing
        targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
        if self.target_threshold is not None:
            targets = (targets > self.target_threshold).to(logits)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """That of each class by itself, (N, K)."""
        return logits.sigmoid()
