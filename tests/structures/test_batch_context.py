import threading

import pytest
import torch

from detlite.structures import ImageExtents, current_extents, image_extents


@pytest.mark.parametrize("canvas", [(96, 128), (61, 58), (33, 100)])
@pytest.mark.parametrize("stride", [1, 2, 8, 32, 64, 128])
def test_an_image_has_as_many_cells_in_a_batch_as_alone(canvas, stride):
    sizes = [canvas, (33, 40), (1, canvas[1]), (canvas[0], 17)]
    extents = ImageExtents(torch.tensor(sizes), canvas)
    cells = tuple(-(-side // stride) for side in canvas)
    mask = extents.mask(torch.empty(4, 2, *cells))
    assert mask.shape == (4, 1, *cells)
    for found, (height, width) in zip(mask[:, 0], sizes, strict=True):
        expected = torch.zeros(cells)
        # On a map of few cells the stride cannot be told, and makes no difference.
        expected[: -(-height // stride), : -(-width // stride)] = 1
        assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 7), (2, 4, 7, 7), (3, 4, 8, 8), (2, 4, 0, 8)])
def test_what_is_no_map_of_the_batch_has_no_mask(shape):
    extents = ImageExtents(torch.tensor([[64, 64], [32, 64]]), (64, 64))
    assert extents.mask(torch.empty(shape)) is None
    assert extents.mask(torch.empty(2, 4, 8, 8)) is not None


def test_extents_hold_within_their_block_and_their_thread():
    outer, inner = (ImageExtents(torch.tensor([[8, 8]]), (8, 8)) for _ in range(2))
    elsewhere = []
    with image_extents(outer):
        with image_extents(inner):
            assert current_extents() is inner
        assert current_extents() is outer
        with image_extents(None):
            assert current_extents() is None
        thread = threading.Thread(target=lambda: elsewhere.append(current_extents()))
        thread.start()
        thread.join()
    assert current_extents() is None
    assert elsewhere == [None]
