"""What of an ``Instances`` can be drawn, in the order of drawing."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..structures import Instances

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DrawnObjects:
    """The objects of one image, the most important last.

    Attributes:
        boxes: (D, 4) XYXY in pixels, finite, in part within the image.
        scores: (D,), or None for ground truth.
        classes: (D,) indices, or None where nothing says what the boxes hold.
    """

    boxes: np.ndarray
    scores: np.ndarray | None
    classes: np.ndarray | None

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def read(cls, instances: Instances, score_thresh: float) -> "DrawnObjects":
        """Take detections, or ground truth where there are none, and skip what cannot be drawn.

        Raises:
            ValueError: There are neither, or the boxes are not (D, 4).
        """
        fields = instances.get_fields()
        kind = "pred" if "pred_boxes" in fields else "gt"
        if fields and f"{kind}_boxes" not in fields:
            raise ValueError(f"nothing to draw: need pred_boxes or gt_boxes, got {instances}")
        boxes = _to_array(fields.get(f"{kind}_boxes", []))
        boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{kind}_boxes must have shape (D, 4), got {boxes.shape}")
        scores = _to_array(fields["scores"]) if kind == "pred" and "scores" in fields else None
        classes = _to_array(fields[f"{kind}_classes"]) if f"{kind}_classes" in fields else None

        drawable = _is_drawable(boxes, instances.image_size)
        if scores is not None:
            drawable &= np.isfinite(scores)
        if not drawable.all():
            logger.warning(
                "%d of %d objects not drawn: not finite, inverted or outside the image",
                np.count_nonzero(~drawable),
                len(boxes),
            )
        keep = drawable if scores is None else drawable & (scores >= score_thresh)
        chosen = _drawing_order(boxes, scores)
        chosen = chosen[keep[chosen]]
        return cls(
            boxes[chosen],
            None if scores is None else scores[chosen],
            None if classes is None else classes[chosen].astype(int),
        )


def _is_drawable(boxes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    height, width = image_size
    x1, y1, x2, y2 = boxes.T
    inside = (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)
    return np.isfinite(boxes).all(axis=1) & (x1 <= x2) & (y1 <= y2) & inside


def _drawing_order(boxes: np.ndarray, scores: np.ndarray | None) -> np.ndarray:
    """Lowest score first, or largest box first, so that what matters lies on top."""
    if scores is not None:
        return np.argsort(scores, kind="stable")
    with np.errstate(invalid="ignore", over="ignore"):
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.argsort(-area, kind="stable")


def _to_array(values: Any) -> np.ndarray:
    return torch.as_tensor(values).detach().to("cpu", torch.float64).numpy()
