import re

import numpy as np
import pytest

from detlite.visualization import text
from detlite.visualization.text import Style, draw_plate, elide, plate_size


@pytest.mark.parametrize(("height", "width"), [(133, 200), (480, 640), (2250, 4000), (4000, 4000)])
def test_lines_and_letters_grow_with_the_image(height, width):
    style = Style.for_image(height, width)
    side = (height * width) ** 0.5
    assert 0.02 <= style.text_size / side <= 0.06
    assert 0.003 <= style.line_width / side <= 0.007


def test_letters_do_not_fill_a_long_strip():
    assert Style.for_image(120, 6000).text_size <= 12


def test_capitals_are_half_a_text_size_high_at_least():
    picture = np.full((200, 600, 3), 128, np.uint8)
    text.draw_text(picture, "RBC", (0, 0), 100, (0, 0, 0))
    rows = np.flatnonzero((picture < 64).any(axis=(1, 2)))
    assert 50 <= rows[-1] - rows[0] <= 80
    assert rows[-1] < plate_size("RBC", 100)[1]


def test_scale_makes_letters_larger():
    assert Style.for_image(600, 900, 2.0).text_size == pytest.approx(
        2 * Style.for_image(600, 900).text_size, abs=1
    )


@pytest.mark.parametrize(
    ("max_width", "expected"),
    [(10**4, "Platelets 0.97"), (110, r"Pl.*\.\. 0.97"), (60, "0.97"), (1, "")],
)
def test_a_long_name_is_shortened_before_its_score(max_width, expected):
    shortened = elide("Platelets", 20, max_width, keep=" 0.97")
    assert re.fullmatch(expected, shortened)
    assert not shortened or plate_size(shortened, 20)[0] <= max_width


def test_a_name_that_is_no_utf8_is_drawn():
    image = np.zeros((40, 300, 3), np.uint8)
    draw_plate(image, "caf\udce9 \ud800", (0, 0), 20, (250, 250, 250))
    assert image.any()
    assert plate_size("caf\udce9", 20) == plate_size("caf\\udce9", 20)
