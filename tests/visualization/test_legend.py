import numpy as np
import pytest

from detlite.visualization.legend import add_legend


@pytest.mark.parametrize("size", [(4, 4), (60, 30), (200, 300)])
def test_a_legend_is_below_the_picture_and_at_most_half_as_high(size):
    picture = np.full((*size, 3), 7, np.uint8)
    entries = [(f"class {k}", (k, 255 - k, 99)) for k in range(80)]
    drawn = add_legend(picture, entries, 12)
    assert np.array_equal(drawn[: size[0]], picture)
    assert drawn.shape[1:] == picture.shape[1:]
    assert size[0] <= drawn.shape[0] <= 1.5 * size[0]
