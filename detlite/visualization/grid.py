"""Several pictures on one sheet."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from .colormap import Color, text_color
from .text import Style, draw_text, elide, plate_size

_BACKGROUND = (32, 32, 32)


def make_grid(
    images: Sequence[np.ndarray],
    columns: int | None = None,
    *,
    titles: Sequence[str] | None = None,
    max_side: int | None = None,
    background: Color = _BACKGROUND,
) -> np.ndarray:
    """Lay pictures out in rows, each centered in a cell of the largest picture's size.

    Args:
        images: (h, w, 3) uint8 RGB each; the sizes may differ.
        columns: Pictures in a row; by default as many as make the grid about square.
        titles: A line of text above each picture, shortened where it is too long.
        max_side: Pictures with a longer side than this are shrunk to it, the others stay.
        background: RGB between and around pictures.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: There is no picture, or one of another type or shape, or ``columns`` is not
            positive, or there are not as many titles as pictures.
    """
    _check(images, columns, titles)
    cells = [_shrink(image, max_side) if max_side else image for image in images]
    height, width = (max(cell.shape[axis] for cell in cells) for axis in (0, 1))
    style = Style.for_image(height, width)
    if titles is not None:
        cells = [
            _under_title(_pad(cell, height, width, background), title, style, background)
            for cell, title in zip(cells, titles, strict=True)
        ]
        height = cells[0].shape[0]
    columns = columns or math.ceil(len(cells) ** 0.5)
    gap = max(2, style.text_size // 3)
    rows = -(-len(cells) // columns)
    shape = (rows * (height + gap) + gap, columns * (width + gap) + gap, 3)
    sheet = np.full(shape, background, np.uint8)
    for i, cell in enumerate(cells):
        y = gap + i // columns * (height + gap)
        x = gap + i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = _pad(cell, height, width, background)
    return sheet


def _check(images: Sequence[np.ndarray], columns: int | None, titles: Sequence[str] | None) -> None:
    if not len(images):
        raise ValueError("a grid needs at least one picture, got none")
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"pictures must be (h, w, 3) uint8, got {image.dtype} of shape {image.shape}"
            )
    if columns is not None and columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"got {len(titles)} titles for {len(images)} pictures")


def _shrink(image: np.ndarray, max_side: int) -> np.ndarray:
    height, width = image.shape[:2]
    factor = max_side / max(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _pad(image: np.ndarray, height: int, width: int, background: Color) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    cell = np.full((height, width, 3), background, np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    cell[top : top + image.shape[0], left : left + image.shape[1]] = image
    return cell


def _under_title(image: np.ndarray, title: str, style: Style, background: Color) -> np.ndarray:
    text = elide(title, style.text_size, image.shape[1])
    strip_height = plate_size(text, style.text_size)[1]
    strip = np.full((strip_height, image.shape[1], 3), background, np.uint8)
    if text:
        draw_text(strip, text, (0, 0), style.text_size, text_color(background))
    return np.concatenate([strip, image])
