import numpy as np
import pytest

from detlite.data.box_units import beyond, units_guess
from detlite.data.datasets import CocoDetection

PIXELS = np.array([[10.0, 20, 30, 40], [0, 0, 5, 5], [60, 50, 30, 40], [2, 90, 8, 6]])


def guess(boxes):
    sides = np.full(len(boxes), 96), np.full(len(boxes), 128)
    return units_guess(boxes, *sides)


def test_pixels_are_left_alone_also_where_some_boxes_are_odd():
    assert guess(PIXELS) == ""
    assert guess(np.concatenate([PIXELS, [[0.1, 0.2, 0.3, 0.4]]])) == ""
    assert guess(np.concatenate([PIXELS, [[100, 50, 110, 60], [np.nan, 1, 1, 1]]])) == ""
    assert guess(np.zeros((0, 4))) == ""


def test_fractions_and_corners_are_named():
    assert "fractions" in guess(PIXELS / [128, 96, 128, 96])
    corners = np.concatenate([PIXELS[:, :2], PIXELS[:, :2] + PIXELS[:, 2:]], axis=1)
    assert "corners" in guess(corners)


def test_a_pixel_beyond_the_image_is_rounding():
    boxes = np.array([[-1.0, 0, 129, 97], [-1.5, 0, 20, 20], [0, 0, 10, 98.5]])
    assert beyond(boxes, np.full(3, 96), np.full(3, 128)).tolist() == [False, True, True]


@pytest.mark.datasets
@pytest.mark.parametrize(("name", "what"), [("normalised", "fractions"), ("xyxy", "corners")])
def test_wrong_units_are_warned_of_with_count_and_example(cases_dir, caplog, name, what):
    folder = cases_dir / "wrong-box-units"
    dataset = CocoDetection(json=str(folder / f"{name}.json"), images=str(folder / "img"))
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    for fact in (what, f"the {len(dataset.boxes_xywh)} boxes", "im0.png: annotation 1", "x, y, w"):
        assert fact in warning
