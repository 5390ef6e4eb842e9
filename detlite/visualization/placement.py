"""Where the label of each box goes."""

from collections.abc import Sequence

import cv2
import numpy as np

# Cost of covering a whole label, in units of covering a whole object.
_LABEL_COST = 3.0
# Cost of each step down the list of places; lets the usual place win where it hides little.
_STEP_COST = 0.03


def place_labels(
    boxes: np.ndarray, sizes: np.ndarray, image_size: tuple[int, int]
) -> list[tuple[int, int]]:
    """Find a place for every label that hides few objects and few labels before it.

    A label goes above its box, or else below, inside or beside it. The places are compared by the
    fraction of each label and of each object that they hide, so that a large object is happily
    written on and a small one is not. Labels never leave the image.

    Args:
        boxes: (D, 4) XYXY in pixels, the most important first.
        sizes: (D, 2) width and height of each label in pixels, no larger than the image.
        image_size: (height, width) in pixels.

    Returns:
        The upper left corner (x, y) of each label.
    """
    limits = np.array([image_size[1], image_size[0]])
    boxes = boxes.clip(0, np.tile(limits, 2))
    labels = np.empty((len(boxes), 4))
    for i, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        corners = _places(box, size).clip(0, limits - size)
        candidates = np.concatenate([corners, corners + size], axis=1)
        cost = _LABEL_COST * _hidden_fractions(candidates, labels[:i]).sum(axis=1)
        cost += _hidden_fractions(candidates, boxes).sum(axis=1)
        cost += _STEP_COST * np.arange(len(candidates))
        labels[i] = candidates[cost.argmin()]
    return [(int(x), int(y)) for x, y in labels[:, :2]]


def hidden_share(
    boxes: np.ndarray,
    corners: Sequence[tuple[int, int]],
    sizes: np.ndarray,
    image_size: tuple[int, int],
) -> float:
    """The fraction of its box that labels hide, the mean over all boxes.

    Args:
        boxes: (D, 4) XYXY in pixels.
        corners: The upper left corner (x, y) of each label.
        sizes: (D, 2) width and height of each label.
        image_size: (height, width) in pixels.
    """
    covered = np.zeros(image_size, np.uint8)
    for (x, y), (width, height) in zip(corners, sizes.tolist(), strict=True):
        covered[y : y + height, x : x + width] = 1
    sums = cv2.integral(covered)
    limits = np.tile(np.array(image_size)[::-1], 2)
    x1, y1, x2, y2 = boxes.round().clip(0, limits).astype(int).T
    hidden = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    return float((hidden / ((x2 - x1) * (y2 - y1)).clip(1)).mean()) if len(boxes) else 0.0


def _places(box: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Upper left corners (P, 2) of a label around its box, the usual place first."""
    x1, y1, x2, y2 = box.round()
    width, height = size
    above, below, right, left = y1 - height, y2, x2 - width, x1
    return np.array(
        [
            (left, above),
            (left, y1),
            (left, below),
            (right, above),
            (right, below),
            (right, y1),
            (left, y2 - height),
            (right, y2 - height),
            (x2, y1),
            (x1 - width, y1),
        ]
    )


def _hidden_fractions(covers: np.ndarray, things: np.ndarray) -> np.ndarray:
    """Fraction (P, D) of each thing (D, 4) that each cover (P, 4) hides."""
    low = np.maximum(covers[:, None, :2], things[None, :, :2])
    high = np.minimum(covers[:, None, 2:], things[None, :, 2:])
    hidden = (high - low).clip(0).prod(axis=2)
    area = (things[:, 2:] - things[:, :2]).prod(axis=1)
    return hidden / area.clip(1)
