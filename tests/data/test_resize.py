"""Sizes and pixels are compared with the functions that the other frameworks call."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detlite.data import ResizeShortestEdge, read_image, transform_sample
from detlite.data.resize import resize_image, shortest_edge_size
from detlite.modeling import ImageNormalizer

METHODS = ["torch", "pillow", "opencv", "interpolate"]


def detectron2_size(height, width, min_size, max_size):
    """detectron2/data/transforms/augmentation_impl.py, ResizeShortestEdge.get_output_shape."""
    scale = min_size * 1.0 / min(height, width)
    if height < width:
        new_height, new_width = min_size, scale * width
    else:
        new_height, new_width = scale * height, min_size
    if max(new_height, new_width) > max_size:
        scale = max_size * 1.0 / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return int(new_height + 0.5), int(new_width + 0.5)


def mmdetection_size(height, width, min_size, max_size):
    """mmcv/image/geometric.py, rescale_size of the scale (max_size, min_size)."""
    factor = min(max_size / max(height, width), min_size / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def torchvision_size(height, width, min_size, max_size):
    """What torchvision's models make of a tensor that has a shape and no pixels."""
    peer = GeneralizedRCNNTransform(min_size, max_size, [0.0] * 3, [1.0] * 3).eval()
    return tuple(peer.resize(torch.empty(3, height, width, device="meta"))[0].shape[-2:])


PEERS = {
    "detectron2": (detectron2_size, {"method": "pillow", "rounding": "round"}),
    "mmdetection": (mmdetection_size, {"method": "opencv", "rounding": "round"}),
    "torchvision": (torchvision_size, {"method": "interpolate", "rounding": "floor"}),
}


@pytest.mark.parametrize(
    ("peer", "count"), [("detectron2", 5000), ("mmdetection", 5000), ("torchvision", 120)]
)
def test_sizes_agree_with_each_peer_everywhere(peer, count):
    size_of, keys = PEERS[peer]
    generator = np.random.default_rng(0)
    for i in range(count):
        height, width = (int(side) for side in generator.integers(32, 2000, 2))
        min_size = int(generator.integers(100, 1100))
        max_size = int(generator.integers(min_size, 2 * min_size + 200))
        if i % 2:
            min_size, max_size = 800, 1333
        expected = size_of(height, width, min_size, max_size)
        assert shortest_edge_size((height, width), min_size, max_size, **keys) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((500, 500), (800, 800)),
        ((240, 640), (500, 1333)),
        ((640, 100), (1333, 208)),
        ((1, 3000), (1, 1333)),
    ],
)
def test_the_shorter_side_gets_its_size_as_in_detectron2(size, expected):
    transform = ResizeShortestEdge(min_size=800, max_size=1333)
    params = transform.make_params([tv_tensors.Image(torch.zeros(3, *size, dtype=torch.uint8))])
    assert tuple(params["size"]) == expected
    if min(size) > 1:
        assert detectron2_size(*size, 800, 1333) == expected


def test_sizes_agree_with_detectron2_everywhere():
    for min_size in (640, 672, 800):
        transform = ResizeShortestEdge(min_size=min_size, max_size=1333)
        for height in range(100, 1000, 37):
            for width in range(100, 1000, 41):
                image = tv_tensors.Image(torch.empty(1, height, width))
                found = transform.make_params([image])["size"]
                assert tuple(found) == detectron2_size(height, width, min_size, 1333)


@pytest.mark.parametrize("size", [(946, 121), (121, 946)])
def test_sizes_agree_with_detectron2_where_rounding_is_close(size):
    transform = ResizeShortestEdge(min_size=800, max_size=1333)
    found = transform.make_params([tv_tensors.Image(torch.empty(1, *size))])["size"]
    assert tuple(found) == detectron2_size(*size, 800, 1333)


# Height, width, min_size, max_size; what detectron2, mmdetection and torchvision make of them.
CLOSE = [
    ((1860, 630, 800, 1333), (1333, 451), (1333, 452), (1333, 451)),
    ((1302, 399, 800, 1333), (1333, 409), (1333, 408), (1333, 408)),
    ((204, 408, 597, 885), (443, 885), (442, 885), (442, 884)),
    ((1685, 1386, 800, 1333), (973, 800), (973, 800), (972, 799)),
    ((427, 640, 800, 1333), (800, 1199), (800, 1199), (800, 1199)),
    ((640, 426, 800, 1333), (1202, 800), (1202, 800), (1201, 800)),
]


@pytest.mark.parametrize("case", CLOSE)
def test_peers_differ_by_a_pixel_where_rounding_is_close(case):
    (height, width, min_size, max_size), *expected = case
    for (size_of, keys), size in zip(PEERS.values(), expected, strict=True):
        assert size_of(height, width, min_size, max_size) == size
        assert shortest_edge_size((height, width), min_size, max_size, **keys) == size


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rounding", ["round", "floor"])
def test_no_side_vanishes(method, rounding):
    assert shortest_edge_size((1, 3000), 800, 1333, method=method, rounding=rounding)[0] == 1
    transform = ResizeShortestEdge(min_size=8, max_size=10, method=method, rounding=rounding)
    assert transform(torch.zeros(3, 100, 1, dtype=torch.uint8)).shape == (3, 10, 1)


def draw_image(height, width, layout="rows", seed=0):
    """An image (3, h, w) uint8 of shades above noise, in memory (h, w, 3) for "pixels"."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[: height // 2] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return image if layout == "pixels" else image.contiguous()


def pillow_pixels(image, size):
    """detectron2/data/transforms/transform.py, ResizeTransform."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    return np.asarray(picture.resize(size[::-1], Image.BILINEAR))


def opencv_pixels(image, size):
    """mmcv/image/geometric.py, imresize; mmcv's images are BGR."""
    bgr = np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:, :, ::-1])
    return cv2.resize(bgr, size[::-1], interpolation=cv2.INTER_LINEAR)[:, :, ::-1]


SIZES = [(50, 70), (96, 41), (64, 48), (7, 200), (1, 1)]


@pytest.mark.parametrize("layout", ["rows", "pixels"])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_pillow_and_opencv(size, layout):
    image = draw_image(64, 48, layout)
    before = image.clone()
    for method, peer in (("pillow", pillow_pixels), ("opencv", opencv_pixels)):
        found = resize_image(image, size, method)
        assert found.dtype == torch.uint8
        assert np.array_equal(found.permute(1, 2, 0).numpy(), peer(image, size))
    assert torch.equal(image, before)


def test_methods_differ_where_an_image_shrinks():
    image = draw_image(64, 48)
    found = {method: resize_image(image, (20, 15), method).float() for method in METHODS}
    # Both antialias and round; they differ in their fixed-point weights at most.
    assert (found["torch"] - found["pillow"]).abs().max() <= 1
    assert (found["opencv"] - found["interpolate"]).abs().max() <= 1
    assert (found["pillow"] - found["opencv"]).abs().mean() > 5


@pytest.mark.parametrize("layout", ["rows", "pixels"])
@pytest.mark.parametrize("size", [(64, 48), (37, 53), (120, 45)])
def test_interpolate_is_torchvisions_to_the_bit(size, layout):
    image = draw_image(*size, layout)
    peer = GeneralizedRCNNTransform(40, 90, [0.0] * 3, [1.0] * 3).eval()
    expected, _ = peer.resize(image.float())
    transform = ResizeShortestEdge(min_size=40, max_size=90, method="interpolate", rounding="floor")
    found = transform(tv_tensors.Image(image))
    assert type(found) is tv_tensors.Image
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert found.min() >= 0
    assert found.max() < 255.001


@pytest.mark.datasets
def test_normalized_photographs_equal_torchvisions(datasets_dir):
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    peer = GeneralizedRCNNTransform(320, 500, mean, std).eval()
    transform = ResizeShortestEdge(
        min_size=320, max_size=500, method="interpolate", rounding="floor"
    )
    images = [read_image(path) for path in sorted((datasets_dir / "photos").glob("*.jpg"))]
    assert len(images) > 5
    batch, _ = peer([image / 255 for image in images])
    found = ImageNormalizer()([transform(image) for image in images])
    assert found.image_sizes == [tuple(size) for size in batch.image_sizes]
    torch.testing.assert_close(found.tensor, batch.tensors, rtol=0, atol=2e-6)


@pytest.mark.parametrize("peer", PEERS)
def test_boxes_are_scaled_by_the_ratios_of_the_sizes(peer):
    """All three multiply by new side / old side of each axis."""
    _, keys = PEERS[peer]
    boxes = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) * 20
    boxes[:, 2:] += boxes[:, :2] + 5
    record = {"image": draw_image(47, 61), "boxes": boxes, "classes": torch.zeros(50).long()}
    record |= {"file_name": "", "image_id": 1, "height": 47, "width": 61}
    transform = ResizeShortestEdge(min_size=33, max_size=40, **keys)
    sample = transform_sample(record, [transform])
    height, width = sample["image"].shape[-2:]
    scale = np.array([width / 61, height / 47] * 2)
    expected = torch.from_numpy(boxes.numpy().astype(np.float64) * scale)
    found = sample["instances"]
    assert found.image_size == (height, width)
    torch.testing.assert_close(found.gt_boxes.double(), expected, rtol=2e-7, atol=0)


@pytest.mark.parametrize("method", ["pillow", "opencv"])
@pytest.mark.parametrize(
    "image", [torch.zeros(3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)], ids=["float", "grey"]
)
def test_what_a_method_cannot_resize_is_refused(method, image):
    with pytest.raises(ValueError, match=rf"method '{method}' resizes uint8 images .* use method"):
        ResizeShortestEdge(min_size=4, method=method)(image)
