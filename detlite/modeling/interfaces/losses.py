"""The contracts of losses, and of what they are divided by."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn


class Loss(nn.Module, ABC):
    """What all losses share; derive from one of those below.

    Given: ``num_classes``.
    """


class ClassificationLoss(Loss):
    """Compares class logits of anchors with class indices."""

    @abstractmethod
    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Sum the loss of logits (R, K). The caller normalizes.

        Args:
            logits: (R, K).
            classes: (R,) int64: 0 to K - 1 the class, K background, -1 ignored.
        """


class QualityLoss(ClassificationLoss):
    """Compares class logits of anchors with class indices and with how good the boxes are."""

    @abstractmethod
    def forward(  # type: ignore[override]  # in a detector's `cls_loss`, as the others, but told more
        self, logits: Tensor, classes: Tensor, qualities: Tensor
    ) -> Tensor:
        """Sum the loss of logits (R, K). The caller normalizes.

        Args:
            logits: (R, K).
            classes: (R,) int64: 0 to K - 1 the class, K background, -1 ignored.
            qualities: (R,) from 0 to 1, the IoU of the predicted box with its ground truth, without
                gradient; where an anchor is no foreground it means nothing.
        """


class ImageClassificationLoss(Loss):
    """Compares class logits of images with the probabilities of classes."""

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss (N,) of each image. The caller takes the mean.

        Args:
            logits: (N, K).
            targets: (N, K) from 0 to 1: a 1 for the class, or the shares of a mixture.
        """

    def probabilities(self, logits: Tensor) -> Tensor:
        """What logits (N, K) trained with this loss mean, (N, K); their softmax by default."""
        return logits.softmax(dim=1)


class BoxLoss(Loss):
    """Compares places, either as deltas or as boxes."""

    compares: ClassVar[Literal["deltas", "boxes"]]
    """Whether ``forward`` wants deltas as the head predicts them or decoded boxes."""

    @abstractmethod
    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Loss (P,) of each predicted box against target (P, 4).

        Predicted are boxes (P, 4), or deltas (P, B) as many as the box coder's ``code_size``; the
        target of deltas is what its ``encode`` says.

        Entries of background anchors come along and are dropped afterwards: the result must be
        finite for every finite input.
        """


class LossNormalizer(nn.Module, ABC):
    """Decides what the sums of losses are divided by."""

    @abstractmethod
    def forward(self, num_positives: Tensor) -> Tensor:
        """Foreground anchors of each image (N,) to the weight (N,) of each image's sum."""
