import numpy as np
import pytest

from detlite.visualization.placement import place_labels


@pytest.mark.parametrize(
    ("box", "corner"),
    [
        ([40, 50, 80, 90], (40, 40)),  # above
        ([40, 4, 60, 24], (40, 24)),  # below: above would hide a part of a small object
        ([0, 0, 200, 100], (0, 0)),  # inside
        ([170, 50, 200, 90], (170, 40)),
        ([190, 50, 200, 90], (170, 40)),  # moved left, to stay in the image
    ],
)
def test_a_label_goes_above_its_box_or_where_it_hides_least(box, corner):
    placed = place_labels(np.array([box], float), np.array([[30, 10]]), (100, 200))
    assert placed == [corner]
