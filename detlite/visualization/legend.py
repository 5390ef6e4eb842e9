"""The classes of a picture and their colors, on a strip below it."""

from collections.abc import Sequence

import numpy as np

from .colormap import Color
from .text import draw_plate, elide, plate_size

_BACKGROUND = (32, 32, 32)


def add_legend(
    picture: np.ndarray, entries: Sequence[tuple[str, Color]], text_size: int
) -> np.ndarray:
    """Put a strip of plates below a picture, in as many rows as they need.

    Args:
        picture: (H, W, 3) uint8 RGB.
        entries: Text and color of each plate, the most important first.
        text_size: In pixels, see ``Style``.

    Returns:
        A new (H + h, W, 3) uint8 RGB array. The strip is at most half as high as the picture;
        entries for which it has no room are left out.
    """
    width = picture.shape[1]
    gap = max(2, text_size // 3)
    row_height = plate_size("", text_size)[1] + gap
    places: list[tuple[str, tuple[int, int], Color]] = []
    x, y = gap, gap
    for text, color in entries:
        text = elide(text, text_size, width - 2 * gap)
        plate_width = plate_size(text, text_size)[0]
        if x > gap and x + plate_width + gap > width:
            x, y = gap, y + row_height
        if not text or y + row_height > picture.shape[0] // 2:
            break
        places.append((text, (x, y), color))
        x += plate_width + gap
    if not places:
        return picture
    strip = np.full((places[-1][1][1] + row_height, width, 3), _BACKGROUND, np.uint8)
    for text, corner, color in places:
        draw_plate(strip, text, corner, text_size, color)
    return np.concatenate([picture, strip])
