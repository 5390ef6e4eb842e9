"""A backbone with a linear layer: what is trained on whole images before detectors are."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DataError
from ...ranges import Fraction
from ...registry import Block
from ...structures import BatchShare
from ..interfaces import Backbone, ImageClassificationLoss, MetaArch, Preprocessor
from ..losses import CrossEntropyLoss
from ..preprocessing import ImageNormalizer, pad_to_canvas, run_by_size
from ..registries import (
    BACKBONE_REGISTRY,
    LOSS_REGISTRY,
    META_ARCH_REGISTRY,
    PREPROCESSOR_REGISTRY,
)


@META_ARCH_REGISTRY.register
class ImageClassifier(MetaArch):
    """Classifies images: the backbone's last map, its mean over all cells, a linear layer.

    With a ``ResNet`` it is torchvision's network of the same depth.

    Args:
        backbone: Makes feature maps, of which the coarsest is read.
        num_classes: K.
        dropout: Share of the pooled channels that are dropped in training.
        loss: Compares logits with classes; cross-entropy by default.
        preprocessor: Turns images into the network's input; by default ImageNet's mean and
            deviation, and no padding but that of images to the greatest of their batch.
    """

    task = "classification"

    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        dropout: Fraction = 0.0,
        loss: ImageClassificationLoss | None = None,
        preprocessor: Preprocessor | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.feature, shape = list(backbone.output_shape().items())[-1]
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(shape.channels, num_classes)
        self.loss = loss or CrossEntropyLoss()
        self.preprocessor = preprocessor or ImageNormalizer(size_divisor=1)

    @classmethod
    def from_config(cls, block: Block, num_classes: int) -> "ImageClassifier":
        """Build each part once."""
        optional = {"loss": LOSS_REGISTRY, "preprocessor": PREPROCESSOR_REGISTRY}
        parts = {
            key: registry.build(block[key], num_classes=num_classes)
            for key, registry in optional.items()
            if block.get(key) is not None
        }
        if block.get("dropout") is not None:
            parts["dropout"] = block.dropout
        backbone = BACKBONE_REGISTRY.build(block.backbone)
        return cls(backbone=backbone, num_classes=num_classes, **parts)

    def forward(self, batch: Sequence[Mapping[str, Any]], share: BatchShare | None = None) -> Any:
        """The loss in training, scores in evaluation; see ``MetaArch.forward``.

        Training reads "gt_class" () int64 or "gt_probs" (K,) of each image, and gives ``loss_cls``
        and ``accuracy``, the share of images whose likeliest class is the target's. Evaluation
        gives each image's "scores", (K,) probabilities in float32, which do not depend on the
        images beside it.
        """
        if not self.training:
            return run_by_size(self.preprocessor, batch, self._scores)
        logits = self._logits(batch, share)
        targets = self._targets(batch, logits)
        if share is None:
            weights = self.loss_weights(torch.ones(len(batch), device=logits.device))
        else:
            weights = share.weights
        right = logits.detach().argmax(dim=1) == targets.argmax(dim=1)
        return {
            "loss_cls": (self.loss(logits, targets) * weights).sum(),
            "accuracy": (right * weights).sum(),
        }

    def predict(self, images: Tensor) -> Tensor:
        """The dense part: images (N, 3, H, W), normalized, to logits (N, K)."""
        features = self.backbone(images)[self.feature]
        logits: Tensor = self.head(self.dropout(torch.flatten(self.pool(features), 1)))
        return logits

    def _scores(self, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
        probabilities = self.loss.probabilities(self._logits(batch))
        return [{"scores": scores.float()} for scores in probabilities]

    def _logits(
        self, batch: Sequence[Mapping[str, Any]], share: BatchShare | None = None
    ) -> Tensor:
        tensors = [sample["image"] for sample in batch]
        if share is None:
            images = self.preprocessor(tensors)
        else:
            images = pad_to_canvas(self.preprocessor, tensors, share.canvas)
        logits = self.predict(images.tensor)
        # float32 at least, also under autocast.
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _targets(self, batch: Sequence[Mapping[str, Any]], logits: Tensor) -> Tensor:
        """Probabilities (N, K) of the classes."""
        classes = torch.arange(self.num_classes, device=logits.device)
        rows = []
        for sample in batch:
            if "gt_probs" in sample:
                rows.append(sample["gt_probs"].to(logits, non_blocking=True))
            elif "gt_class" in sample:
                gt_class = sample["gt_class"].to(logits.device, non_blocking=True)
                rows.append((classes == gt_class).to(logits))
            else:
                raise DataError(
                    f"a training sample has no 'gt_class' and no 'gt_probs', it has "
                    f"{', '.join(sample)}; an ImageClassifier is trained on classification data "
                    "sets, such as ImageFolder"
                )
        return torch.stack(rows)
