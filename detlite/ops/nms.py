"""Non-maximum suppression: of boxes that overlap, keep the one with the best score."""

import torch
from torch import Tensor

from . import reference
from ._library import register
from .boxes import check_boxes


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy NMS.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,). NaN counts as the lowest score.
        iou_threshold: A box is dropped if its IoU with a kept one is greater.

    Returns:
        (M,) int64 indices of the kept boxes, by falling score, equal scores by rising index.

    Raises:
        ValueError: Shapes or types do not fit, or the threshold is not in [0, 1].
    """
    _check(boxes, scores, iou_threshold)
    return _nms(boxes, scores, iou_threshold)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Greedy NMS in which boxes suppress only those of their own group, such as a class.

    Groups are compared, not shifted apart in the plane, which would round the coordinates.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,).
        groups: (N,) integers.
        iou_threshold: A box is dropped if its IoU with a kept one of its group is greater.

    Returns:
        (M,) int64 indices as of ``nms``, over all groups together.

    Raises:
        ValueError: Shapes or types do not fit, or the threshold is not in [0, 1].
    """
    _check(boxes, scores, iou_threshold)
    if groups.shape != scores.shape or groups.is_floating_point():
        raise ValueError(
            f"groups must be ({len(scores)},) integers, got {tuple(groups.shape)} {groups.dtype}"
        )
    _check_device(boxes, groups, "groups")
    return _batched_nms(boxes, scores, groups, iou_threshold)


def nms_padded(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, max_detections: int
) -> tuple[Tensor, Tensor]:
    """NMS by groups for a whole batch, with an output shape that does not depend on the data.

    Args:
        boxes: (B, N, 4) XYXY.
        scores: (B, N); minus infinity marks a place without a candidate.
        groups: (B, N) integers.
        iou_threshold: A box is dropped if its IoU with a kept one of its group is greater.
        max_detections: How many of the best to keep for each image.

    Returns:
        Indices (B, max_detections) int64 into N by falling score, -1 where there are no more, and
        the number of kept boxes (B,) int64.

    Raises:
        ValueError: Shapes or types do not fit, the threshold is not in [0, 1], or max_detections
            is negative.
    """
    batch = boxes.shape[:-1]
    if boxes.ndim != 3 or boxes.shape[-1] != 4 or scores.shape != batch or groups.shape != batch:
        raise ValueError(
            "boxes, scores and groups must have shapes (B, N, 4), (B, N) and (B, N), got "
            f"{tuple(boxes.shape)}, {tuple(scores.shape)} and {tuple(groups.shape)}"
        )
    if boxes.dtype != scores.dtype:
        raise ValueError(
            f"boxes and scores must be of one type, got {boxes.dtype} and {scores.dtype}"
        )
    _check_scores(boxes, scores)
    if groups.is_floating_point():
        raise ValueError(f"groups must be integers, got {groups.dtype}")
    _check_device(boxes, groups, "groups")
    _check_threshold(iou_threshold)
    if max_detections < 0:
        raise ValueError(f"max_detections must not be negative, got {max_detections}")
    return _nms_padded(boxes, scores, groups, iou_threshold, max_detections)


def _check(boxes: Tensor, scores: Tensor, iou_threshold: float) -> None:
    check_boxes(boxes)
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores must have shape ({len(boxes)},), got {tuple(scores.shape)}")
    _check_scores(boxes, scores)
    _check_threshold(iou_threshold)


def _check_scores(boxes: Tensor, scores: Tensor) -> None:
    if not scores.is_floating_point():
        raise ValueError(f"scores must be of a floating type, got {scores.dtype}")
    _check_device(boxes, scores, "scores")


def _check_device(boxes: Tensor, other: Tensor, name: str) -> None:
    if other.device != boxes.device:
        raise ValueError(f"{name} must be on {boxes.device} as boxes, got {other.device}")


def _check_threshold(iou_threshold: float) -> None:
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in [0, 1], got {iou_threshold}")


def _some_indices(boxes: Tensor, *rest: object) -> Tensor:
    num_kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(num_kept, dtype=torch.int64)


def _padded_indices(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, max_detections: int
) -> tuple[Tensor, Tensor]:
    batch = boxes.shape[0]
    indices = boxes.new_empty(batch, max_detections, dtype=torch.int64)
    return indices, boxes.new_empty(batch, dtype=torch.int64)


_nms = register(reference.nms, _some_indices)
_batched_nms = register(reference.batched_nms, _some_indices)
_nms_padded = register(reference.nms_padded, _padded_indices)
