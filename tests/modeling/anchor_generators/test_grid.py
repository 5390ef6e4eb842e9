import math

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from detlite.modeling import DeltaBoxCoder
from detlite.modeling.anchor_generators import GridAnchorGenerator
from detlite.ops import box_iou

STRIDES = (8, 16, 32, 64, 128)
RETINANET_SIZES = [
    [x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))] for x in (32, 64, 128, 256, 512)
]
LIKE_TORCHVISION = {"order": "ratio_major", "rounding": "torchvision", "cell_spacing": "image"}


def grid_sizes(height, width):
    """The sizes of p3..p7: strided convolutions round up from level to level."""
    sizes = [(height // 8, width // 8)]
    while len(sizes) < len(STRIDES):
        sizes.append(tuple(math.ceil(side / 2) for side in sizes[-1]))
    return sizes


def cell_anchors(**arguments):
    """The anchors of one cell at the origin of a level of stride 8."""
    return GridAnchorGenerator(strides=(8,), **arguments)([(1, 1)], (8, 8))[0]


@pytest.mark.parametrize("order", ["size_major", "ratio_major"])
def test_cell_anchors_are_octave_sizes_times_aspect_ratios(order):
    anchors = cell_anchors(order=order)
    sizes = [32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)]
    pairs = [(size, ratio) for size in sizes for ratio in (0.5, 1.0, 2.0)]
    if order == "ratio_major":
        pairs.sort(key=lambda pair: pair[1])
    width, height = (anchors[:, 2:] - anchors[:, :2]).T
    assert (width * height).tolist() == pytest.approx([size**2 for size, _ in pairs])
    assert (height / width).tolist() == pytest.approx([ratio for _, ratio in pairs])
    assert (anchors[:, :2] + anchors[:, 2:]).abs().max() < 1e-5


def test_cell_anchors_are_those_of_detectron2():
    # DefaultAnchorGenerator(sizes=[[32, 40.32, 50.80]], aspect_ratios=[[0.5, 1, 2]]), rounded.
    expected = [
        [-22.627, -11.314, 22.627, 11.314],
        [-16.0, -16.0, 16.0, 16.0],
        [-11.314, -22.627, 11.314, 22.627],
        [-28.509, -14.254, 28.509, 14.254],
        [-20.159, -20.159, 20.159, 20.159],
        [-14.254, -28.509, 14.254, 28.509],
        [-35.919, -17.959, 35.919, 17.959],
        [-25.398, -25.398, 25.398, 25.398],
        [-17.959, -35.919, 17.959, 35.919],
    ]
    anchors = cell_anchors(base_size=4, scales_per_octave=3, aspect_ratios=(0.5, 1.0, 2.0))
    torch.testing.assert_close(anchors, torch.tensor(expected), rtol=0, atol=6e-4)


def test_the_next_octave_begins_with_the_next_level():
    generator = GridAnchorGenerator(strides=(8, 16), scales_per_octave=2, aspect_ratios=(1.0,))
    fine, coarse = generator([(1, 1), (1, 1)], (16, 16))
    assert (fine[:, 2] * 2).tolist() == pytest.approx([32, 32 * 2**0.5])
    assert (coarse[:, 2] * 2).tolist() == pytest.approx([64, 64 * 2**0.5])


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_cells_come_row_by_row_with_their_anchors_together(offset):
    generator = GridAnchorGenerator(
        strides=(8,), scales_per_octave=1, aspect_ratios=(1.0, 4.0), offset=offset
    )
    assert generator.num_anchors == 2
    (anchors,) = generator([(2, 3)], (16, 24))
    half = torch.tensor([[-16.0, -16, 16, 16], [-8, -32, 8, 32]])
    centers = [[(x + offset) * 8, (y + offset) * 8] * 2 for y in (0, 1) for x in (0, 1, 2)]
    expected = torch.tensor(centers)[:, None] + half
    torch.testing.assert_close(anchors, expected.reshape(-1, 4), rtol=0, atol=0)


def test_sizes_can_be_given_in_pixels():
    anchors = cell_anchors(sizes=[[10, 20]], aspect_ratios=(1.0,))
    assert anchors.tolist() == [[-5, -5, 5, 5], [-10, -10, 10, 10]]


@pytest.mark.parametrize(
    "size", [(832, 1088), (352, 512), (320, 416), (800, 1344), (32, 32), (64, 96), (1312, 32)]
)
@pytest.mark.parametrize("sizes", [None, RETINANET_SIZES])
def test_anchors_equal_torchvision(size, sizes):
    ratios = (0.5, 1.0, 2.0)
    generator = GridAnchorGenerator(
        strides=STRIDES, sizes=sizes, aspect_ratios=ratios, **LIKE_TORCHVISION
    )
    peer = AnchorGenerator(tuple(map(tuple, RETINANET_SIZES)), (ratios,) * 5)
    images = ImageList(torch.zeros(1, 3, *size), [size])
    levels = grid_sizes(*size)
    expected = peer(images, [torch.zeros(1, 1, *level) for level in levels])[0]
    anchors = generator(levels, size)
    assert [len(level) for level in anchors] == [9 * rows * cols for rows, cols in levels]
    assert torch.equal(torch.cat(anchors), expected)
    assert generator.num_anchors == peer.num_anchors_per_location()[0]


def test_rounded_cell_anchors_equal_torchvision_for_every_size():
    ratios = (0.1, 1 / 3, 0.5, 2 / 3, 1.0, 1.5, 2.0, 3.0, 10.0)
    sizes = [[size + 0.6 for size in range(8, 700)]]
    anchors = cell_anchors(sizes=sizes, aspect_ratios=ratios, **LIKE_TORCHVISION)
    assert torch.equal(anchors, AnchorGenerator().generate_anchors(list(range(8, 700)), ratios))


def test_strides_are_nominal_unless_the_image_decides():
    # A level of 3 cells for 100 pixels: 33 pixels a cell, the stride is 32.
    for spacing, step in (("stride", 32), ("image", 33)):
        generator = GridAnchorGenerator(
            strides=(32,), scales_per_octave=1, aspect_ratios=(1.0,), cell_spacing=spacing
        )
        (anchors,) = generator([(1, 3)], (32, 100))
        assert (anchors[:, 0] + 64).tolist() == [0, step, 2 * step]


def test_anchors_are_no_part_of_a_checkpoint_and_follow_the_module():
    generator = GridAnchorGenerator(strides=STRIDES)
    assert not generator.state_dict()
    assert generator.double()(grid_sizes(64, 64), (64, 64))[0].dtype == torch.float64


@pytest.mark.parametrize("sizes", [[[8.0]], [[8.0], [16.0, 17.0]], [[], []], []])
def test_sizes_that_do_not_fit_the_levels_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must hold 2 lists, one a level, of equal length"):
        GridAnchorGenerator(strides=(8, 16), sizes=sizes)


LIKE_ODTK = {"offset": 0.5, "aspect_ratios": (1.0, 2.0, 0.5), "inclusive": True}


def test_inclusive_anchors_are_those_of_odtk():
    # ODTK's corners around a cell of stride 8 are 4 -+ scale * side / 2 with the sides
    # w = 8 / sqrt(ratio), h = ratio * w; they name pixels, so that the box ends one further.
    expected = []
    for scale in (4, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3)):
        for ratio in (1.0, 2.0, 0.5):
            w = 8 / ratio**0.5
            h = w * ratio
            first = [4 - scale * w / 2, 4 - scale * h / 2]
            last = [4 + scale * w / 2, 4 + scale * h / 2]
            expected.append([*first, last[0] + 1, last[1] + 1])
    anchors = cell_anchors(**LIKE_ODTK)
    torch.testing.assert_close(anchors, torch.tensor(expected), rtol=0, atol=1e-5)
    assert anchors[0].tolist() == [-12, -12, 21, 21]
    assert anchors[1].tolist() == pytest.approx([-7.3137, -18.6274, 16.3137, 27.6274], abs=1e-4)
    generator = GridAnchorGenerator(strides=(8,), **LIKE_ODTK)
    (grid,) = generator([(2, 2)], (16, 16))
    assert grid[9 * 3].tolist() == [-12 + 8, -12 + 8, 21 + 8, 21 + 8]


def test_boxes_coded_from_inclusive_anchors_are_those_of_odtk():
    # The pixels 3 to 22 and 4 to 33 are a box of 20 by 30, COCO's [3, 4, 20, 30]. ODTK's anchor of
    # the pixels -12 to 20 is 33 wide and centred on 4.5.
    anchor = cell_anchors(**LIKE_ODTK)[:1]
    box = torch.tensor([[3.0, 4, 3 + 20, 4 + 30]])
    deltas = [8.5 / 33, 14.5 / 33, math.log(20 / 33), math.log(30 / 33)]
    coder = DeltaBoxCoder()
    assert coder.encode(box, anchor)[0].tolist() == pytest.approx(deltas)
    torch.testing.assert_close(coder.decode(torch.tensor([deltas]), anchor), box)
    # The common pixels are 3 to 20 and 4 to 20: 18 by 17.
    overlap = 18 * 17
    expected = overlap / (20 * 30 + 33 * 33 - overlap)
    assert box_iou(box, anchor).item() == pytest.approx(expected)


@pytest.mark.parametrize("order", ["size_major", "ratio_major"])
def test_anchors_end_before_their_last_pixel_by_default(order):
    plain, inclusive = cell_anchors(order=order), cell_anchors(order=order, inclusive=True)
    assert torch.equal(inclusive, plain + torch.tensor([0.0, 0, 1, 1]))
