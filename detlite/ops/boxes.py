"""Geometry of boxes, (N, 4) XYXY in pixels."""

import torch
from torch import Tensor

from . import reference


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair.

    Args:
        boxes1: (N, 4).
        boxes2: (M, 4), the same type.

    Returns:
        (N, M) in [0, 1]; 0 where a box is empty, inverted or not finite.

    Raises:
        ValueError: A tensor is not (N, 4) of a floating type, or the types differ.
    """
    _check_pair(boxes1, boxes2)
    return reference.box_iou(boxes1, boxes2)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of every pair (Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630).

    Args:
        boxes1: (N, 4).
        boxes2: (M, 4), the same type.

    Returns:
        (N, M) in (-1, 1]; -1 where a box is empty, inverted or not finite.

    Raises:
        ValueError: A tensor is not (N, 4) of a floating type, or the types differ.
    """
    _check_pair(boxes1, boxes2)
    return reference.generalized_box_iou(boxes1, boxes2)


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Move the corners that lie outside the image onto its border.

    Args:
        boxes: (..., D, 4).
        image_sizes: (..., 2), height and width in the same pixels.

    Returns:
        (..., D, 4); a box outside the image becomes one without an area.
    """
    limits = image_sizes.to(boxes)[..., [1, 0, 1, 0]].unsqueeze(-2)
    return torch.minimum(boxes.clamp(min=0), limits)


def check_boxes(boxes: Tensor, name: str = "boxes") -> None:
    """Raise a ValueError unless ``boxes`` is a floating tensor (N, 4)."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must have shape (N, 4), got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise ValueError(f"{name} must be of a floating type, got {boxes.dtype}")


def _check_pair(boxes1: Tensor, boxes2: Tensor) -> None:
    check_boxes(boxes1, "boxes1")
    check_boxes(boxes2, "boxes2")
    if boxes1.dtype != boxes2.dtype or boxes1.device != boxes2.device:
        raise ValueError(
            f"boxes1 and boxes2 must agree in type and device, got {boxes1.dtype} on "
            f"{boxes1.device} and {boxes2.dtype} on {boxes2.device}"
        )
