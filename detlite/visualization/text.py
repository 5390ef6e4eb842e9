"""Text on pictures, and how large text and lines must be for a picture.

OpenCV draws the text: from version 5 on with its built-in outline font, antialiased and for most
scripts; before that with its stroke font, which has ASCII only.
"""

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..utils.printable import printable
from .colormap import Color, text_color

# Of the text's size: capitals reach 0.7 above the baseline, descenders 0.2 below.
_LINE_HEIGHT = 1.26
_BASELINE = 0.98
_PADDING = 0.3

_WEIGHT = 450  # between regular and medium; thin strokes drown in a color
_MIN_TEXT_SIZE = 9  # pixels; smaller letters cannot be read at all


@dataclass(frozen=True)
class Style:
    """Sizes in pixels that look alike on every picture once it is scaled to the same screen.

    Attributes:
        line_width: Width of a box's line.
        text_size: Height of a line of text, about 1.4 times that of a capital letter.
    """

    line_width: int
    text_size: int

    @classmethod
    def for_image(cls, height: int, width: int, scale: float = 1.0) -> "Style":
        """The style that fits an image; ``scale`` makes lines and letters larger or smaller."""
        side = (height * width) ** 0.5
        # A long strip has few pixels across it, which letters must not fill.
        text_size = min(side / 40, min(height, width) / 12) * scale
        return cls(max(1, round(side / 250 * scale)), max(_MIN_TEXT_SIZE, round(text_size)))


def plate_size(text: str, text_size: int) -> tuple[int, int]:
    """(width, height) of a line of text with its padding; the height is the same for all texts."""
    width = _text_width(text, text_size) + 2 * _padding(text_size)
    return width, round(_LINE_HEIGHT * text_size)


def draw_plate(
    image: np.ndarray, text: str, corner: tuple[int, int], text_size: int, background: Color
) -> None:
    """Draw a line of text on a filled rectangle into ``image``, its upper left at (x, y)."""
    x, y = corner
    width, height = plate_size(text, text_size)
    end = (x + width - 1, y + height - 1)
    cv2.rectangle(image, corner, end, background, cv2.FILLED)
    # Overlapping plates of one class would look like one.
    edge = [channel // 2 for channel in background]
    cv2.rectangle(image, corner, end, edge, max(1, text_size // 30))
    draw_text(image, text, corner, text_size, text_color(background))


def draw_text(
    image: np.ndarray, text: str, corner: tuple[int, int], text_size: int, color: Color
) -> None:
    """Draw a line of text and its padding into ``image``, the upper left at (x, y)."""
    text = printable(text)
    origin = (corner[0] + _padding(text_size), corner[1] + round(_BASELINE * text_size))
    face = _font_face()
    if face is None:
        font, scale, thickness = _stroke_font(text_size)
        cv2.putText(image, text, origin, font, scale, color, thickness, cv2.LINE_AA)
    else:
        cv2.putText(image, text, origin, color, face, text_size, _WEIGHT)


def elide(text: str, text_size: int, max_width: int, keep: str = "") -> str:
    """Shorten ``text`` until it fits with ``keep`` behind it; ``keep`` stays whole or goes too."""
    ends = range(len(text) - 1, 0, -1)
    shorter = (text[:end].rstrip() + ".." + keep for end in ends)
    for candidate in itertools.chain([text + keep], shorter, [keep]):
        if plate_size(candidate.strip(), text_size)[0] <= max_width:
            return candidate.strip()
    return ""


def _padding(text_size: int) -> int:
    return round(_PADDING * text_size)


def _text_width(text: str, text_size: int) -> int:
    text = printable(text)
    face = _font_face()
    if face is None:
        return int(cv2.getTextSize(text, *_stroke_font(text_size))[0][0])
    x, _, width, _ = cv2.getTextSize((1, 1), text, (0, 0), face, text_size, _WEIGHT)
    return x + width


@functools.cache
def _font_face() -> Any:
    """OpenCV's outline font, or None before version 5; reading it takes some 20 ms."""
    return cv2.FontFace("sans") if hasattr(cv2, "FontFace") else None


def _stroke_font(text_size: int) -> tuple[int, float, int]:
    """Font, scale and thickness; capitals of the stroke font are 21 pixels high at scale 1."""
    return cv2.FONT_HERSHEY_SIMPLEX, text_size / 30, max(1, round(text_size / 14))
