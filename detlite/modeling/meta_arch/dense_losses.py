"""What a dense detector's predictions cost."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..interfaces import BoxCoder, BoxLoss, ClassificationLoss, QualityLoss
from ..losses import paired_iou
from .dense_targets import DenseTargets


class DensePredictions(NamedTuple):
    """What the network says of a batch.

    Attributes:
        logits: (N, R, K) of the classes.
        deltas: (N, R, B), boxes relative to the anchors.
        grid_sizes: (height, width) of each level in cells.
        centerness: (N, R) logits, of heads that predict it.
    """

    logits: Tensor
    deltas: Tensor
    grid_sizes: list[tuple[int, int]]
    centerness: Tensor | None = None


def loss_sums(
    predictions: DensePredictions,
    targets: DenseTargets,
    anchors: Tensor,
    *,
    box_coder: BoxCoder,
    cls_loss: ClassificationLoss,
    box_losses: Mapping[str, BoxLoss],
) -> dict[str, Tensor]:
    """Each loss, summed over the anchors of each image.

    Args:
        predictions: What the network says.
        targets: What it should.
        anchors: (R, 4).
        box_coder: Of the deltas.
        cls_loss: Compares logits with classes, a ``QualityLoss`` also with the boxes' IoU.
        box_losses: By name.

    Returns:
        (N,) by the name of the loss: "cls", those of ``box_losses``, and "centerness" if the head
        predicts it.
    """
    # float32 at least, also under autocast.
    dtype = torch.promote_types(predictions.logits.dtype, torch.float32)
    logits, deltas = predictions.logits.to(dtype), predictions.deltas.to(dtype)
    boxes = deltas  # unless a loss compares boxes
    is_quality = isinstance(cls_loss, QualityLoss)
    if is_quality or any(loss.compares == "boxes" for loss in box_losses.values()):
        boxes = box_coder.decode(deltas, anchors)
    wanted = [logits, targets.classes]
    if is_quality:
        wanted.append(paired_iou(boxes.detach(), targets.boxes))
    by_image = [cls_loss(*of_image) for of_image in zip(*wanted, strict=True)]
    sums = {"cls": torch.stack(by_image)}
    for name, loss in box_losses.items():
        if loss.compares == "boxes":
            sums[name] = targets.sum_foreground(_each(loss, boxes, targets.boxes))
        else:
            encoded = box_coder.encode(targets.boxes, anchors)
            sums[name] = targets.sum_foreground(_each(loss, deltas, encoded))
    if predictions.centerness is not None:
        losses = F.binary_cross_entropy_with_logits(
            predictions.centerness.to(dtype), targets.centerness(anchors), reduction="none"
        )
        sums["centerness"] = targets.sum_foreground(losses)
    return sums


def _each(loss: BoxLoss, predicted: Tensor, targets: Tensor) -> Tensor:
    """The losses (N, R) of N images' predictions (N, R, ...) against targets (N, R, 4)."""
    losses: Tensor = loss(predicted.flatten(0, 1), targets.flatten(0, 1))
    return losses.unflatten(0, predicted.shape[:2])
