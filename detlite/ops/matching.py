"""Matching of anchors to ground truth by IoU."""

from torch import Tensor

from . import reference
from .boxes import check_boxes


def match_anchors(
    gt_boxes: Tensor,
    anchors: Tensor,
    foreground_thresh: float,
    background_thresh: float,
    allow_low_quality: bool,
) -> tuple[Tensor, Tensor]:
    """Give each anchor the ground truth that it overlaps most, and a label.

    Args:
        gt_boxes: (G, 4) XYXY; G may be 0.
        anchors: (R, 4) XYXY.
        foreground_thresh: From this IoU on an anchor is foreground.
        background_thresh: Below this IoU an anchor is background; between the two it is ignored.
        allow_low_quality: Also make foreground each anchor that no other anchor surpasses in IoU
            with some ground truth; it keeps the ground truth that it overlaps most itself. A
            ground truth that no anchor overlaps makes none.

    Returns:
        The index of the ground truth (R,) int64, the first one where several overlap equally, and
        the label (R,) int8: 1 foreground, 0 background, -1 ignored. Without ground truth all
        indices and labels are 0.

    Raises:
        ValueError: Shapes do not fit, or the thresholds are not 0 <= background <= foreground <= 1.
    """
    check_boxes(gt_boxes, "gt_boxes")
    check_boxes(anchors, "anchors")
    if not 0 <= background_thresh <= foreground_thresh <= 1:
        raise ValueError(
            "thresholds must satisfy 0 <= background_thresh <= foreground_thresh <= 1, "
            f"got background {background_thresh}, foreground {foreground_thresh}"
        )
    return reference.match_anchors(
        gt_boxes, anchors, foreground_thresh, background_thresh, allow_low_quality
    )
