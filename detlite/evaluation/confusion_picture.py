"""A confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..utils.picture_file import write_picture
from ..utils.printable import printable

_SIDE = 900  # pixels that the cells take together, about
_LARGEST_CELL, _SMALLEST_LABELLED = 64, 14
_MARGIN = 12
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DARK, _LIGHT = (40, 40, 40), (255, 255, 255)
_FULL = np.array([20, 60, 140])  # a dark blue


def write_confusion_picture(path: Path, counts: np.ndarray, class_names: Sequence[str]) -> None:
    """Draw counts as cells, the darker the larger their share of the row.

    Names and numbers are left out where cells are too small for them.

    Args:
        path: The file.
        counts: (K, K): objects by their class (row) and by what they were taken for (column).
        class_names: K.

    Raises:
        OSError: The file cannot be written.
    """
    num_classes = len(class_names)
    cell = max(1, min(_LARGEST_CELL, _SIDE // num_classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colors = 255 + shares[..., None] * (_FULL - 255)
    cells = np.kron(colors.round().astype(np.uint8), np.ones((cell, cell, 1), np.uint8))
    if cell >= _SMALLEST_LABELLED:
        _write_counts(cells, counts, shares, cell)
        labels = _label_strip(class_names, cell, at_right=True)
        corner = np.full((labels.shape[1], labels.shape[1], 3), 255, np.uint8)
        upright = np.rot90(_label_strip(class_names, cell, at_right=False))
        top = np.concatenate([corner, upright], axis=1)
        cells = np.concatenate([top, np.concatenate([labels, cells], axis=1)], axis=0)
    picture = cv2.copyMakeBorder(
        cells, _MARGIN, _MARGIN, _MARGIN, _MARGIN, cv2.BORDER_CONSTANT, value=_LIGHT
    )
    write_picture(path, picture)


def _write_counts(cells: np.ndarray, counts: np.ndarray, shares: np.ndarray, cell: int) -> None:
    scale = cell / 110
    for row, column in zip(*np.nonzero(counts), strict=True):
        text = str(counts[row, column])
        (width, height), _ = cv2.getTextSize(text, _FONT, scale, 1)
        if width > cell - 4:
            continue
        origin = (column * cell + (cell - width) // 2, row * cell + (cell + height) // 2)
        color = _LIGHT if shares[row, column] > 0.5 else _DARK
        cv2.putText(cells, text, origin, _FONT, scale, color, 1, cv2.LINE_AA)


def _label_strip(class_names: Sequence[str], cell: int, *, at_right: bool) -> np.ndarray:
    """The names one under the other, each in the middle of its cell's height."""
    scale = min(cell, 36) / 60
    names = [name if len(name) <= 24 else f"{name[:22]}.." for name in map(printable, class_names)]
    sizes = [cv2.getTextSize(name, _FONT, scale, 1)[0] for name in names]
    width = max(size[0] for size in sizes) + 12
    strip = np.full((cell * len(names), width, 3), 255, np.uint8)
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        origin = (width - size[0] - 6 if at_right else 6, i * cell + (cell + size[1]) // 2)
        cv2.putText(strip, name, origin, _FONT, scale, _DARK, 1, cv2.LINE_AA)
    return strip
