import numpy as np
import pytest

from detlite.visualization import make_grid


@pytest.mark.parametrize(
    ("num_images", "columns", "shape"),
    [(1, None, (1, 1)), (4, None, (2, 2)), (5, None, (2, 3)), (5, 2, (3, 2)), (2, 4, (1, 4))],
)
def test_a_grid_has_a_cell_for_every_picture(num_images, columns, shape):
    images = [np.full((20, 30, 3), 100 + i, np.uint8) for i in range(num_images)]
    sheet = make_grid(images, columns)
    gap = sheet.shape[0] - shape[0] * 20
    assert 0 < gap <= 5 * (shape[0] + 1)
    assert sheet.shape[1] - shape[1] * 30 == gap // (shape[0] + 1) * (shape[1] + 1)
    for i in range(num_images):
        assert (sheet == 100 + i).all(axis=2).sum() == 20 * 30


def test_a_grid_centers_small_pictures_and_shrinks_large_ones():
    small, large = np.full((10, 10, 3), 200, np.uint8), np.full((100, 300, 3), 100, np.uint8)
    sheet = make_grid([small, large], 1, max_side=60, background=(0, 0, 0))
    assert (sheet == 200).all(axis=2).sum() == 10 * 10
    assert (sheet == 100).all(axis=2).sum() == 20 * 60
    columns = np.flatnonzero((sheet == 200).all(axis=2).any(axis=0))
    assert columns[0] == sheet.shape[1] - 1 - columns[-1]


def test_a_title_stands_above_every_picture_of_a_grid():
    images = [np.full((100, 200, 3), 100, np.uint8)] * 2
    sheet = make_grid(images, titles=["a", "a title that is longer than its picture is wide"])
    first_row = np.flatnonzero((sheet == 100).all(axis=2).any(axis=1))[0]
    bright = (sheet[:first_row] > 200).all(axis=2)
    assert bright[:, :202].any()
    assert bright[:, 202:].any()


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "at least one picture"),
        ([np.zeros((5, 5), np.uint8)], {}, r"\(5, 5\)"),
        ([np.zeros((5, 5, 3))], {}, "float64"),
        ([np.zeros((5, 5, 3), np.uint8)], {"columns": 0}, "columns must be at least 1, got 0"),
        ([np.zeros((5, 5, 3), np.uint8)], {"titles": []}, "0 titles for 1 pictures"),
    ],
)
def test_a_grid_refuses_what_it_cannot_lay_out(images, options, message):
    with pytest.raises(ValueError, match=message):
        make_grid(images, **options)
