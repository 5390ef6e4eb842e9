import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detlite.modeling import ImageNormalizer

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def draw_image(height, width):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("channel_order", ["RGB", "BGR"])
def test_each_channel_is_normalized_by_its_own_numbers(channel_order):
    images = ImageNormalizer(channel_order=channel_order, size_divisor=1)([draw_image(5, 7)])
    assert images.tensor.shape == (1, 3, 5, 7)
    image = draw_image(5, 7).float()
    for channel, place in enumerate((0, 1, 2) if channel_order == "RGB" else (2, 1, 0)):
        expected = (image[channel] - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(images.tensor[0, place], expected)


def test_normalizing_equals_torchvision_on_its_scale_of_0_to_1():
    values = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    peer = GeneralizedRCNNTransform(1, 256, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    result = ImageNormalizer(size_divisor=1)([values]).tensor[0]
    torch.testing.assert_close(result, peer.normalize(values / 255), rtol=1e-6, atol=1e-6)


def test_detectron2s_normalization_is_bgr_without_a_deviation():
    normalizer = ImageNormalizer(mean=MEAN, std=(1, 1, 1), channel_order="BGR")
    images = normalizer([torch.zeros(3, 32, 32, dtype=torch.uint8)])
    assert (-images.tensor[0, :, 0, 0]).tolist() == pytest.approx([103.53, 116.28, 123.675])


@pytest.mark.parametrize(("divisor", "size"), [(1, (40, 50)), (32, (64, 64)), (7, (42, 56))])
def test_a_batch_is_padded_with_zeros_at_the_right_and_the_bottom(divisor, size):
    small, large = draw_image(10, 50), draw_image(40, 33)
    images = ImageNormalizer(size_divisor=divisor)([small, large])
    assert images.tensor.shape == (2, 3, *size)
    assert images.image_sizes == [(10, 50), (40, 33)]
    for i, image in enumerate((small, large)):
        height, width = image.shape[1:]
        alone = ImageNormalizer(size_divisor=1)([image]).tensor[0]
        assert torch.equal(images.tensor[i, :, :height, :width], alone)
        assert not images.tensor[i, :, height:].any()
        assert not images.tensor[i, :, :, width:].any()


def test_the_numbers_are_no_part_of_a_checkpoint():
    assert not ImageNormalizer().state_dict()


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8, 3), (8, 8), (1, 3, 8, 8)])
def test_what_is_no_rgb_image_is_refused(shape):
    with pytest.raises(ValueError, match=r"images must have shape \(3, h, w\), got \("):
        ImageNormalizer()([torch.zeros(shape, dtype=torch.uint8)])


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        ImageNormalizer()([])


@pytest.mark.parametrize(("divisor", "size"), [(1, (41, 60)), (32, (64, 64))])
def test_a_part_of_a_batch_is_padded_to_the_canvas_of_the_whole(divisor, size):
    normalizer = ImageNormalizer(size_divisor=divisor)
    whole = normalizer([draw_image(10, 60), draw_image(41, 33)])
    part = normalizer([draw_image(10, 60)], canvas=(41, 60))
    assert part.tensor.shape[-2:] == whole.tensor.shape[-2:] == size
    assert normalizer.padded_size((41, 60)) == size
    assert torch.equal(part.tensor[0], whole.tensor[0])
    assert part.image_sizes == [(10, 60)]
