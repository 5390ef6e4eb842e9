"""Drawing coloured shapes on textured ground: first where they lie, then the pixels.

Places and pixels are drawn from two streams of random numbers, so that boxes are known without
rendering. An image depends on nothing but its seed, its index and the options.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

_SHIFT = 4  # OpenCV takes fixed-point corners; 4 fractional bits place them to 1/16 pixel.
_PLACEMENT_TRIALS = 12  # A crowded image gives up on a shape rather than searching for long.
_PLACES, _PIXELS = 0, 1  # The two streams of an image.


class Layout(NamedTuple):
    """How shapes are spread over an image.

    Attributes:
        image_size: Height and width in pixels.
        num_classes: How many of ``CLASS_NAMES``, from the first on, appear.
        max_objects: Largest number of shapes; an image that is not empty aims at one at least.
        size_range: Smallest and largest diameter, in parts of the shorter side of the image.
        max_cover: Largest part of the smaller of two shapes that they may share.
        empty_fraction: Part of the images that show no shape.
    """

    image_size: tuple[int, int]
    num_classes: int
    max_objects: int
    size_range: tuple[float, float]
    max_cover: float
    empty_fraction: float


class Shape(NamedTuple):
    """A shape in its place.

    Attributes:
        class_index: Index into ``CLASS_NAMES``.
        box: (4,) int64 XYXY in pixels, tight around the visible part, within the image.
        contours: Corners (c, 2) in 1/16 pixels; a second contour is a hole.
    """

    class_index: int
    box: np.ndarray
    contours: list[np.ndarray]


def place_shapes(seed: int, index: int, layout: Layout) -> list[Shape]:
    """Find places for the shapes of image ``index``, in the order in which they are painted."""
    rng = np.random.default_rng([seed, index, _PLACES])
    empty = rng.random() < layout.empty_fraction
    count = 0 if empty else int(rng.integers(1, layout.max_objects + 1))
    shapes: list[Shape] = []
    for class_index in rng.integers(layout.num_classes, size=count).tolist():
        shape = _place(rng, class_index, layout, shapes)
        if shape is not None:
            shapes.append(shape)
    return shapes


def draw_image(
    seed: int, index: int, shapes: list[Shape], image_size: tuple[int, int]
) -> np.ndarray:
    """Paint shapes on the ground of image ``index``.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rng = np.random.default_rng([seed, index, _PIXELS])
    image = _draw_ground(rng, image_size)
    for shape in shapes:
        _paint(rng, image, shape)
    return image


def _regular(radii: tuple[float, ...], corners: int) -> np.ndarray:
    """A closed outline of ``corners`` points whose radii repeat ``radii``."""
    angles = np.arange(corners) * (2.0 * np.pi / corners)
    radius = np.resize(np.asarray(radii), corners)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _cross() -> np.ndarray:
    """The twelve corners of a plus sign whose arms are 0.56 wide."""
    quarter = np.array([[0.28, 1.0], [0.28, 0.28], [1.0, 0.28]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


# Each class and its outline, within the unit circle or nearly so. More than one contour means that
# the inner one is a hole (OpenCV fills polygons by the even-odd rule).
_OUTLINES: dict[str, tuple[np.ndarray, ...]] = {
    "circle": (_regular((1.0,), 48),),
    "triangle": (_regular((1.0,), 3),),
    "cross": (_cross(),),
    "square": (_regular((1.0,), 4),),
    "star": (_regular((1.0, 0.42), 10),),
    "ring": (_regular((1.0,), 48), _regular((0.55,), 48)),
}
CLASS_NAMES = tuple(_OUTLINES)


def _place(rng: Generator, class_index: int, layout: Layout, others: list[Shape]) -> Shape | None:
    height, width = layout.image_size
    low, high = np.log(np.asarray(layout.size_range) * min(height, width))
    for _ in range(_PLACEMENT_TRIALS):
        # Log-uniform, so that small, middle and large shapes are about equally frequent.
        radius = 0.5 * float(np.exp(rng.uniform(low, high)))
        # The border cuts off a small part of a shape at most.
        margin = 0.85 * radius
        centre_x = rng.uniform(margin, max(width - margin, margin + 1.0))
        centre_y = rng.uniform(margin, max(height - margin, margin + 1.0))
        angle, squeeze = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.75, 1.0)
        reach = (centre_x - radius, centre_y - radius, centre_x + radius, centre_y + radius)
        if any(_covers(reach, shape.box.tolist(), layout.max_cover) for shape in others):
            continue
        centre = np.array([centre_x, centre_y])
        contours = _contours(class_index, centre, radius, angle, squeeze)
        coverage = _rasterize(contours, layout.image_size)
        # A pixel belongs to the box if the shape covers at least half of it.
        x, y, w, h = cv2.boundingRect((coverage > 127).astype(np.uint8))
        if w > 0 and h > 0:
            return Shape(class_index, np.array([x, y, x + w, y + h]), contours)
    return None


def _covers(reach: Sequence[float], box: Sequence[float], max_cover: float) -> bool:
    """Whether two boxes share too much; numbers of Python, since there are few and often."""
    left, top, right, bottom = reach
    x0, y0, x1, y1 = box
    overlap = max(min(right, x1) - max(left, x0), 0.0) * max(min(bottom, y1) - max(top, y0), 0.0)
    smaller = min((x1 - x0) * (y1 - y0), (right - left) * (bottom - top))
    return overlap > max_cover * smaller


def _contours(
    class_index: int, centre: np.ndarray, radius: float, angle: float, squeeze: float
) -> list[np.ndarray]:
    cos, sin = np.cos(angle), np.sin(angle)
    # Squeeze along the shape's own axis first, then turn: squares become rectangles, not rhombi.
    own = np.pi / 4 if CLASS_NAMES[class_index] == "square" else 0.0
    spin = np.array([[np.cos(own), np.sin(own)], [-np.sin(own), np.cos(own)]])
    matrix = spin @ np.diag([1.0, squeeze]) @ np.array([[cos, sin], [-sin, cos]]) * radius
    return [
        np.round((outline @ matrix + centre) * (1 << _SHIFT)).astype(np.int32)
        for outline in _OUTLINES[CLASS_NAMES[class_index]]
    ]


def _rasterize(contours: list[np.ndarray], image_size: tuple[int, int]) -> np.ndarray:
    """The antialiased coverage (H, W) uint8 of a shape, 0 to 255."""
    coverage = np.zeros(image_size, dtype=np.uint8)
    cv2.fillPoly(coverage, contours, 255, cv2.LINE_AA, _SHIFT)
    return coverage


def _draw_ground(rng: Generator, image_size: tuple[int, int]) -> np.ndarray:
    """Draw a muted ground: colour patches, stripes or stray lines, and fine grain."""
    height, width = image_size
    # A few random colours, blown up, make gradients (coarse grid) or blotches (finer grid).
    cells = int(rng.choice([2, 3, 6, 12]))
    # Near grey, so that the vivid shapes stand out to the eye.
    base = rng.uniform(60, 200) + rng.uniform(-30, 30, size=3)
    spread = rng.uniform(10, 40)
    patches = base + rng.uniform(-spread, spread, size=(cells, cells, 3))
    patches = patches.clip(0, 255).astype(np.uint8)
    image = cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)
    kind = rng.random()
    if kind < 0.35:
        _draw_stripes(rng, image)
    elif kind < 0.75:
        _draw_lines(rng, image, base)
    amplitude = int(rng.integers(4, 32))
    grain = rng.integers(0, amplitude, size=(height, width, 3), dtype=np.uint8)
    # Saturating arithmetic keeps bright and dark ground from wrapping around.
    return cv2.subtract(cv2.add(image, grain), np.full_like(image, amplitude // 2))


def _draw_stripes(rng: Generator, image: np.ndarray) -> None:
    """Shade ``image`` in place with soft parallel stripes of random pitch and direction."""
    height, width = image.shape[:2]
    pitch = rng.uniform(0.05, 0.25) * min(height, width)
    angle = rng.uniform(0.0, np.pi)
    rows = np.arange(height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    columns = np.arange(width, dtype=np.float32)[None, :] * np.float32(np.cos(angle))
    wave = np.sin((rows + columns) * np.float32(2.0 * np.pi / pitch))
    shade = (rng.uniform(8, 28) * (wave + 1.0)).astype(np.uint8)
    cv2.add(image, cv2.merge([shade, shade, shade]), dst=image)


def _draw_lines(rng: Generator, image: np.ndarray, base: np.ndarray) -> None:
    """Scatter thin lines over ``image`` in place: edges that belong to no shape."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(2, 8))):
        start, end = rng.uniform(-0.1, 1.1, size=(2, 2)) * (width, height)
        colour = (base + rng.uniform(-70, 70, size=3)).clip(0, 255)
        thickness = int(rng.integers(1, 3))
        first, last = (tuple(int(v) for v in point) for point in (start, end))
        cv2.line(image, first, last, colour.tolist(), thickness, cv2.LINE_AA)


def _paint(rng: Generator, image: np.ndarray, shape: Shape) -> None:
    """Blend a shape of random colour into ``image`` in place."""
    height, width = image.shape[:2]
    coverage = _rasterize(shape.contours, (height, width))
    # The box and the soft fringe around it.
    x0, y0 = (shape.box[:2] - 1).clip(min=0).tolist()
    x1, y1 = (shape.box[2:] + 1).clip(max=(width, height)).tolist()
    region = image[y0:y1, x0:x1]
    colour = _contrasting_colour(rng, region)
    # Light falls along a random direction: a flat fill would be too easy and look dull.
    slope_x, slope_y = rng.uniform(-0.25, 0.25, size=2)
    rows = np.linspace(-slope_y, slope_y, y1 - y0, dtype=np.float32)[:, None, None]
    columns = np.linspace(-slope_x, slope_x, x1 - x0, dtype=np.float32)[None, :, None]
    fill = (colour * (1.0 + rows + columns)).clip(0, 255)
    weight = coverage[y0:y1, x0:x1, None] * np.float32(1.0 / 255.0)
    image[y0:y1, x0:x1] = region + (fill - region) * weight


def _contrasting_colour(rng: Generator, region: np.ndarray) -> np.ndarray:
    """A vivid colour that is not close to the mean of what it will cover."""
    ground = np.asarray(cv2.mean(region)[:3], dtype=np.float32)
    colour = ground
    for _ in range(8):
        hue = int(rng.integers(180))
        saturation, value = int(rng.integers(120, 256)), int(rng.integers(110, 256))
        pixel = np.array([[[hue, saturation, value]]], dtype=np.uint8)
        colour = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
        if np.abs(colour - ground).max() > 80.0:
            break
    return colour
