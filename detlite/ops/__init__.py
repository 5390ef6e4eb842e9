"""Operations on boxes. Every one is exact, and the same on every device.

Bad boxes have one meaning in all of them: a box that is not finite, or whose width or height is
not positive, overlaps nothing (IoU 0). NMS therefore keeps it, matching gives it to no anchor.
"""

from .boxes import box_iou, clip_boxes, generalized_box_iou
from .focal import sigmoid_focal_loss
from .matching import match_anchors
from .nms import batched_nms, nms, nms_padded

__all__ = [
    "batched_nms",
    "box_iou",
    "clip_boxes",
    "generalized_box_iou",
    "match_anchors",
    "nms",
    "nms_padded",
    "sigmoid_focal_loss",
]
