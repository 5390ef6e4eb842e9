"""Matching of anchors to ground truth by IoU."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from . import reference
from ._library import register
from .boxes import check_boxes


def match_anchors(
    gt_boxes: Tensor | Sequence[Tensor],
    anchors: Tensor,
    foreground_thresh: float,
    background_thresh: float,
    allow_low_quality: bool,
) -> tuple[Tensor, Tensor]:
    """Give each anchor the ground truth that it overlaps most, and a label.

    The IoU matrix is never made: beside the results it takes memory for a few boxes.

    Args:
        gt_boxes: (G, 4) XYXY of one image, or a sequence of them, one an image; G may be 0.
        anchors: (R, 4) XYXY, of the same type; a batch shares them.
        foreground_thresh: From this IoU on an anchor is foreground. It is rounded to the type of
            the boxes, float32 for those of 16 bits, as is the other.
        background_thresh: Below this IoU an anchor is background; between the two it is ignored.
        allow_low_quality: Also make foreground each anchor that no other anchor surpasses in IoU
            with some ground truth; it keeps the ground truth that it overlaps most itself. A
            ground truth that no anchor overlaps makes none.

    Returns:
        The index of the image's ground truth (R,) int64, the first one where several overlap
        equally, and the label (R,) int8: 1 foreground, 0 background, -1 ignored; for a sequence
        (N, R) each. Without ground truth all indices and labels are 0.

    Raises:
        ValueError: Shapes or types do not fit, or the thresholds are not
            0 <= background <= foreground <= 1.
    """
    if isinstance(gt_boxes, Tensor):
        matched, labels = match_anchors(
            [gt_boxes], anchors, foreground_thresh, background_thresh, allow_low_quality
        )
        return matched[0], labels[0]
    _check(gt_boxes, anchors, foreground_thresh, background_thresh)
    return _match_anchors(
        gt_boxes[0] if len(gt_boxes) == 1 else torch.cat([*gt_boxes, anchors[:0]]),
        _offsets([boxes.shape[0] for boxes in gt_boxes], anchors.device),
        anchors,
        foreground_thresh,
        background_thresh,
        allow_low_quality,
    )


def _check(
    gt_boxes: Sequence[Tensor], anchors: Tensor, foreground_thresh: float, background_thresh: float
) -> None:
    check_boxes(anchors, "anchors")
    for i, boxes in enumerate(gt_boxes):
        name = "gt_boxes" if len(gt_boxes) == 1 else f"gt_boxes[{i}]"
        check_boxes(boxes, name)
        if boxes.dtype != anchors.dtype or boxes.device != anchors.device:
            raise ValueError(
                f"{name} and anchors must agree in type and device, got {boxes.dtype} on "
                f"{boxes.device} and {anchors.dtype} on {anchors.device}"
            )
    if not 0 <= background_thresh <= foreground_thresh <= 1:
        raise ValueError(
            "thresholds must satisfy 0 <= background_thresh <= foreground_thresh <= 1, "
            f"got background {background_thresh}, foreground {foreground_thresh}"
        )


def _offsets(counts: Sequence[int], device: torch.device) -> Tensor:
    """Where each image begins in a list of all boxes, and the end: (N + 1,) int64."""
    # From pinned memory the copy does not wait for the device.
    offsets = torch.tensor([0, *accumulate(counts)], pin_memory=device.type == "cuda")
    return offsets.to(device, non_blocking=True)


def _no_data(
    gt_boxes: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    foreground_thresh: float,
    background_thresh: float,
    allow_low_quality: bool,
) -> tuple[Tensor, Tensor]:
    shape = (offsets.shape[0] - 1, anchors.shape[0])
    return anchors.new_empty(shape, dtype=torch.int64), anchors.new_empty(shape, dtype=torch.int8)


_match_anchors = register(reference.match_anchors, _no_data)
