import itertools

import cv2
import numpy as np
import pytest

from detlite.visualization.colormap import PALETTE_SIZE, class_color, text_color

# Linear RGB as dichromats see it: Viénot et al. 1999 for red and green, which the palette was not
# chosen with, and Machado et al. 2009 for blue, where Viénot's model does not hold.
SIMULATIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
    "deuteranopia": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(rgb):
    value = np.asarray(rgb) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(linear_rgb):
    """CIELAB by OpenCV, of which a distance of 2.3 is just noticeable."""
    value = np.clip(linear_rgb, 0, 1)
    gamma = np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(gamma[None].astype(np.float32), cv2.COLOR_RGB2Lab)[0]


def smallest_distance(num_classes, viewer):
    seen = linear([class_color(c) for c in range(num_classes)]) @ np.array(SIMULATIONS[viewer]).T
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab(seen), 2))


def contrast(a, b):
    """The contrast ratio of WCAG 2."""
    darker, lighter = sorted(linear([a, b]) @ [0.2126, 0.7152, 0.0722])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("viewer", SIMULATIONS)
@pytest.mark.parametrize(("num_classes", "distance"), [(3, 35), (8, 15), (16, 9)])
def test_the_first_colors_differ_for_every_viewer(viewer, num_classes, distance):
    assert smallest_distance(num_classes, viewer) >= distance


def test_no_color_comes_twice_in_the_palette():
    assert len({class_color(c) for c in range(PALETTE_SIZE)}) == PALETTE_SIZE >= 91


@pytest.mark.parametrize("class_index", [-1, PALETTE_SIZE, 10**9])
def test_every_index_has_a_color(class_index):
    assert class_color(class_index) == class_color(class_index % PALETTE_SIZE)


def test_colors_are_plain_numbers_that_opencv_accepts():
    for class_index in range(PALETTE_SIZE):
        assert all(type(c) is int and 0 <= c <= 255 for c in class_color(class_index))


def test_text_is_readable_on_every_class_color():
    for color in map(class_color, range(PALETTE_SIZE)):
        assert contrast(color, text_color(color)) >= 4.5


@pytest.mark.parametrize("grey", range(0, 256, 5))
def test_text_is_black_or_white_whichever_contrasts_more(grey):
    background = (grey, grey, grey)
    best = max([(0, 0, 0), (255, 255, 255)], key=lambda color: contrast(color, background))
    assert text_color(background) == best
