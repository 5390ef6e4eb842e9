"""What the log says of boxes that cannot be right, or are not used as they stand in the file."""

import logging
from collections.abc import Callable

import numpy as np

from .index import DetectionIndex

_MAX_TOLD = 20
# Fractions reach 1, and a little more where boxes go beyond their image.
_LARGEST_FRACTION = 1.5
# Tools write two decimals, so that a box to the border may end a hundredth of a pixel beyond it.
_TOLERANCE = 0.1
# Of XYXY corners the wrong sum x + w is beyond the image for most objects right of or below its
# middle; of boxes as they should be for few, and never are all of them wider than they are far
# from the left.
_SHARE_BEYOND, _SHARE_CORNERS = 0.25, 0.99

logger = logging.getLogger(__name__)

DescribeBox = Callable[[int, int], str]
"""Where the annotation file holds a box, by its image and its number over all images."""


def tell_odd_boxes(index: DetectionIndex, describe: DescribeBox) -> None:
    """Log boxes that look like fractions or corners, that are left out, and that are clipped."""
    _tell_degenerate(index, describe)
    _tell_units(index, describe)


def _tell_degenerate(index: DetectionIndex, describe: DescribeBox) -> None:
    boxes = np.flatnonzero(index.degenerate)
    if len(boxes) == 0:
        return
    lines = [
        f"    {_told(index, int(b), describe, index.class_names[index.classes[b]])}"
        for b in boxes[:_MAX_TOLD]
    ]
    if len(boxes) > _MAX_TOLD:
        lines.append(f"    and {len(boxes) - _MAX_TOLD} more")
    logger.warning(
        "%s: boxes left out of training because they are empty, inverted, not finite or wholly "
        "outside their image (%d):\n%s",
        index.name,
        len(boxes),
        "\n".join(lines),
    )


def _tell_units(index: DetectionIndex, describe: DescribeBox) -> None:
    images = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    widths, heights = index.widths[images], index.heights[images]
    x, y, w, h = index.boxes_xywh.T
    used = np.isfinite(index.boxes_xywh).all(axis=1) & (w > 0) & (h > 0)
    with np.errstate(invalid="ignore", over="ignore"):
        fractions = used & (np.abs(index.boxes_xywh) <= _LARGEST_FRACTION).all(axis=1)
        right, bottom = x + w, y + h
        beyond = (right > widths + _TOLERANCE) | (bottom > heights + _TOLERANCE)
        clipped = used & ~index.degenerate & (beyond | (np.minimum(x, y) < -_TOLERANCE))
        corners = used & (x >= 0) & (y >= 0) & (w > x) & (h > y)
        corners &= (w <= widths + 1) & (h <= heights + 1)
    num_used = int(used.sum())
    if fractions.sum() > num_used / 2:
        _warn(
            index,
            fractions,
            describe,
            "have no number above 1.5: they look normalised, as fractions of the image. Boxes must "
            "be in pixels: multiply x and width by the image's width, y and height by its height",
        )
    elif (
        corners.sum() >= _SHARE_CORNERS * num_used and clipped.sum() > _SHARE_BEYOND * num_used > 0
    ):
        _warn(
            index,
            clipped,
            describe,
            "reach beyond their image, and all have width > x and height > y: they look like "
            "corners x1, y1, x2, y2. Boxes must be x, y, width, height: subtract x1 from x2 and y1 "
            "from y2",
        )
    elif clipped.any():
        first = int(np.argmax(clipped))
        logger.info(
            "%s: %d of %d boxes reach beyond their image and are clipped to it in training, e.g. "
            "%s",
            index.name,
            int(clipped.sum()),
            len(images),
            _told(index, first, describe, index.class_names[index.classes[first]]),
        )


def _warn(index: DetectionIndex, boxes: np.ndarray, describe: DescribeBox, reason: str) -> None:
    first = int(np.argmax(boxes))
    logger.warning(
        "%s: %d of %d boxes %s.\n    E.g. %s",
        index.name,
        int(boxes.sum()),
        len(boxes),
        reason,
        _told(index, first, describe, index.class_names[index.classes[first]]),
    )


def _told(index: DetectionIndex, box: int, describe: DescribeBox, class_name: str) -> str:
    image = int(np.searchsorted(index.offsets, box, side="right")) - 1
    numbers = ", ".join(f"{value:g}" for value in index.boxes_xywh[box])
    return (
        f"{describe(image, box)}, class '{class_name}', x, y, w, h = {numbers} in "
        f"{index.widths[image]} x {index.heights[image]} pixels"
    )
