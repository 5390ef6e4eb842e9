"""Boxes whose numbers look like other units than x, y, width and height in pixels."""

import numpy as np

_MOST = 0.9  # share of the boxes that must look like it: data sets have odd boxes
_SOME = 0.1
_TOLERANCE = 1.0  # pixels that a box may reach beyond its image by rounding


def units_guess(boxes_xywh: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> str:
    """What the boxes of a data set look like, if not like pixels; "" if they do.

    Args:
        boxes_xywh: (B, 4) as read; not finite ones are passed over.
        heights: (B,) of the image of each box, in pixels.
        widths: The same.
    """
    known = np.isfinite(boxes_xywh).all(axis=1)
    x, y, w, h = boxes_xywh[known].T
    if not len(x):
        return ""
    fractions = (x + w <= 1.01) & (y + h <= 1.01) & (w > 0) & (h > 0)
    if fractions.mean() >= _MOST and min(heights.min(), widths.min()) > 2:
        return "fractions of the image's width and height, which must be multiplied by these"
    inside = (w >= x) & (h >= y) & (w <= widths[known]) & (h <= heights[known])
    if inside.mean() >= _MOST and beyond(boxes_xywh, heights, widths)[known].mean() >= _SOME:
        return "corners x1, y1, x2, y2, from which width and height must be computed"
    return ""


def beyond(boxes_xywh: np.ndarray, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """(B,) bool, the boxes that reach more than a pixel beyond their image; arguments as above."""
    x, y, w, h = boxes_xywh.T
    with np.errstate(invalid="ignore", over="ignore"):
        return (
            (x < -_TOLERANCE)
            | (y < -_TOLERANCE)
            | (x + w > widths + _TOLERANCE)
            | (y + h > heights + _TOLERANCE)
        )
