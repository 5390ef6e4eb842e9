import dataclasses

import pytest
import torch

from detlite import ImageList


def test_images_lie_in_the_upper_left_corner_and_the_rest_is_padding():
    images = [torch.full((3, 4, 6), 1.0), torch.full((3, 5, 2), 2.0)]
    batch = ImageList.from_tensors(images, pad_value=7.0)
    assert batch.tensor.shape == (2, 3, 5, 6)
    assert batch.image_sizes == [(4, 6), (5, 2)]
    assert len(batch) == 2
    for tensor, image, (height, width) in zip(batch.tensor, images, batch.image_sizes, strict=True):
        assert torch.equal(tensor[:, :height, :width], image)
        assert (tensor[:, height:] == 7).all()
        assert (tensor[:, :, width:] == 7).all()


@pytest.mark.parametrize(
    ("divisor", "expected"), [(1, (33, 65)), (2, (34, 66)), (32, (64, 96)), (65, (65, 65))]
)
def test_the_common_size_is_the_next_multiple_of_the_divisor(divisor, expected):
    batch = ImageList.from_tensors([torch.zeros(1, 33, 65)], size_divisor=divisor)
    assert tuple(batch.tensor.shape[-2:]) == expected


def test_a_size_that_fits_is_not_padded():
    batch = ImageList.from_tensors([torch.zeros(3, 64, 32)], size_divisor=32)
    assert batch.tensor.shape == (1, 3, 64, 32)


def test_the_type_of_the_images_is_kept():
    batch = ImageList.from_tensors([torch.zeros(3, 2, 2, dtype=torch.uint8)])
    assert batch.tensor.dtype == torch.uint8


def test_no_image_and_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="needs at least one image, got none"):
        ImageList.from_tensors([])
    with pytest.raises(ValueError, match=r"shape \(C, h, w\), got \(4, 6\)"):
        ImageList.from_tensors([torch.zeros(3, 4, 6), torch.zeros(4, 6)])


def test_an_image_list_does_not_change():
    batch = ImageList.from_tensors([torch.zeros(3, 2, 2)])
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.image_sizes = []


def test_a_canvas_is_padded_to_instead_of_the_greatest_image():
    images = [torch.ones(3, 4, 6), torch.ones(3, 5, 2)]
    assert ImageList.from_tensors(images, canvas=(9, 7)).tensor.shape[-2:] == (9, 7)
    batch = ImageList.from_tensors(images, canvas=(9, 7), size_divisor=4, pad_value=7.0)
    assert batch.tensor.shape[-2:] == (12, 8)
    assert batch.image_sizes == [(4, 6), (5, 2)]
    assert (batch.tensor[1, :, 5:] == 7).all()


@pytest.mark.parametrize("canvas", [(4, 7), (9, 5)])
def test_a_canvas_below_an_image_is_refused(canvas):
    images = [torch.zeros(3, 4, 6), torch.zeros(3, 5, 2)]
    with pytest.raises(ValueError, match=rf"\(5, 6\) exceed the canvas \({canvas[0]}, {canvas[1]}"):
        ImageList.from_tensors(images, canvas=canvas)
