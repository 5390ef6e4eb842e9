"""Boxes are checked against a rectangle painted into the image, which takes the same way."""

from collections import Counter

import pytest
import torch
from torchvision import tv_tensors

from detlite import TRANSFORM_REGISTRY, ConfigError
from detlite.config.check import Checker
from detlite.config.tree import Tree
from detlite.data import RandomRotate90, ResizeShortestEdge, build_transforms, transform_sample


def painted(height, width, box):
    """A sample of one white rectangle on black, in the form that data sets give."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    x1, y1, x2, y2 = box
    image[:, y1:y2, x1:x2] = 255
    return record(image, torch.tensor([box], dtype=torch.float32))


def record(image, boxes):
    return {
        "image": image,
        "boxes": boxes,
        "classes": torch.arange(len(boxes)),
        "file_name": "a.png",
        "image_id": 1,
        "height": image.shape[1],
        "width": image.shape[2],
    }


def painted_box(image):
    """The box around what is white, or None."""
    rows, columns = (torch.nonzero((image[0] > 127).any(dim=axis)).flatten() for axis in (1, 0))
    if len(rows) == 0:
        return None
    return [int(side) for side in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def build(*blocks):
    """Transforms of blocks, checked as those of a config are."""
    checker = Checker(Tree())
    checked = [
        checker.block(TRANSFORM_REGISTRY, block, ("t", str(i))) for i, block in enumerate(blocks)
    ]
    assert checker.problems == []
    return build_transforms(checked)


def test_a_size_is_drawn_for_each_image():
    transform = ResizeShortestEdge(min_size=[8, 12, 16], max_size=100)
    torch.manual_seed(0)
    image = tv_tensors.Image(torch.zeros(3, 4, 4, dtype=torch.uint8))
    assert {transform(image).shape[-1] for _ in range(40)} == {8, 12, 16}


def test_an_empty_list_of_sizes_is_refused():
    with pytest.raises(ValueError, match="min_size needs at least one size"):
        ResizeShortestEdge(min_size=[])


@pytest.mark.parametrize("box", [(0, 0, 10, 5), (3, 7, 20, 30), (30, 20, 48, 32)])
@pytest.mark.parametrize(
    "blocks",
    [
        [{"name": "RandomHorizontalFlip", "p": 1.0}],
        [{"name": "RandomVerticalFlip", "p": 1.0}],
        [{"name": "RandomHorizontalFlip", "p": 0.0}],
        [{"name": "RandomRotate90", "p": 1.0}],
        [{"name": "RandomRotate90", "p": 0.5}, {"name": "RandomHorizontalFlip"}],
    ],
)
def test_boxes_follow_what_moves_whole_pixels_exactly(blocks, box):
    transforms = build(*blocks)
    for seed in range(8):
        torch.manual_seed(seed)
        sample = transform_sample(painted(32, 48, box), transforms)
        (found,) = sample["instances"].gt_boxes.tolist()
        assert found == pytest.approx(painted_box(sample["image"]), abs=1e-4)
        assert sample["instances"].image_size == tuple(sample["image"].shape[-2:])


@pytest.mark.parametrize(
    "block",
    [
        {"name": "ResizeShortestEdge", "min_size": [64, 80, 96], "max_size": 200},
        {"name": "ScaleJitter", "target_size": [64, 64], "scale_range": [0.5, 2.0]},
        {"name": "RandomCrop", "size": [24, 24]},
        {"name": "RandomIoUCrop"},
        {"name": "RandomZoomOut", "p": 1.0},
        {"name": "RandomResize", "min_size": 40, "max_size": 90},
    ],
)
def test_boxes_follow_what_scales_and_crops_within_a_pixel(block):
    transforms = build(block)
    kept = 0
    for seed in range(25):
        torch.manual_seed(seed)
        sample = transform_sample(painted(32, 48, (10, 8, 30, 20)), transforms)
        boxes = sample["instances"].gt_boxes.tolist()
        white = painted_box(sample["image"])
        if boxes:
            kept += 1
            assert boxes[0] == pytest.approx(white, abs=1.6)
        elif block["name"] == "RandomIoUCrop":
            continue  # drops objects whose centre lies outside, whatever can still be seen
        else:
            assert white is None or min(white[2] - white[0], white[3] - white[1]) <= 1
    assert kept >= 10


def test_turning_four_times_gives_the_image_back():
    torch.manual_seed(1)
    image = tv_tensors.Image(torch.randint(256, (3, 5, 8), dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes([[1.0, 2.0, 6.0, 4.0]], format="XYXY", canvas_size=(5, 8))
    turn = RandomRotate90(p=1.0)
    for turns in (1, 2, 3):
        turned = turn.transform(image, {"turns": turns})
        assert torch.equal(turned, torch.rot90(image.as_subclass(torch.Tensor), turns, (1, 2)))
    back = turn.transform(boxes, {"turns": 4})
    assert back.tolist() == [pytest.approx([1.0, 2.0, 6.0, 4.0], abs=1e-4)]


def test_all_turns_come_and_none_with_probability_zero():
    torch.manual_seed(0)
    assert {RandomRotate90(p=1.0).make_params([])["turns"] for _ in range(50)} == {1, 2, 3}
    assert {RandomRotate90(p=0.0).make_params([])["turns"] for _ in range(50)} == {0}
    assert {RandomRotate90().make_params([])["turns"] for _ in range(99)} == {0, 1, 2, 3}


FLIP = {"name": "RandomHorizontalFlip", "p": 1.0}
LIFT = {"name": "RandomVerticalFlip", "p": 1.0}


STAYED, FLIPPED, LIFTED, BOTH = (0, 0, 2, 3), (6, 0, 8, 3), (0, 5, 2, 8), (6, 5, 8, 8)


def shares(block):
    """Share of 200 draws in which the painted rectangle lands at each place."""
    torch.manual_seed(0)
    transforms = build(block)
    counts = Counter()
    for _ in range(200):
        sample = transform_sample(painted(8, 8, STAYED), transforms)
        counts[tuple(sample["instances"].gt_boxes[0].tolist())] += 1
    return {place: count / 200 for place, count in counts.items()}


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_random_apply_takes_all_of_its_transforms_or_none(p):
    found = shares({"name": "RandomApply", "transforms": [FLIP, LIFT], "p": p})
    assert set(found) <= {STAYED, BOTH}
    assert found.get(BOTH, 0) == pytest.approx(p, abs=0.1)


@pytest.mark.parametrize(("p", "expected"), [(None, 0.5), ([0.2, 0.8], 0.2), ([1.0, 0.0], 1.0)])
def test_random_choice_takes_one_of_its_transforms(p, expected):
    found = shares({"name": "RandomChoice", "transforms": [FLIP, LIFT], "p": p})
    assert set(found) <= {FLIPPED, LIFTED}
    assert found[FLIPPED] == pytest.approx(expected, abs=0.1)


def test_transforms_of_transforms_nest():
    inner = {"name": "RandomChoice", "transforms": [FLIP]}
    assert shares({"name": "RandomApply", "transforms": [inner], "p": 1.0}) == {FLIPPED: 1}


def test_a_mistake_within_nested_transforms_is_found():
    checker = Checker(Tree())
    block = {"name": "RandomApply", "transforms": [{"name": "RandomHorizontalFlp"}]}
    checker.block(TRANSFORM_REGISTRY, block, ("t",))
    (problem,) = checker.problems
    assert (
        "no transform named 'RandomHorizontalFlp'; did you mean 'RandomHorizontalFlip'?" in problem
    )
    with pytest.raises(ConfigError, match="RandomHorizontalFlip"):
        build_transforms([{"name": "RandomHorizontalFlp"}])


@pytest.mark.parametrize("num_boxes", [0, 1, 5])
@pytest.mark.parametrize(
    "block",
    [
        {"name": "RandomIoUCrop", "min_scale": 0.3, "max_scale": 1.0},
        {"name": "RandomIoUCrop", "sampler_options": [0.5, 1.0]},
        {"name": "ScaleJitter", "target_size": [64, 48], "scale_range": [0.1, 2.0]},
        {"name": "RandomZoomOut", "fill": [1, 2, 3], "side_range": [1.0, 2.0], "p": 1.0},
        {"name": "RandomPhotometricDistort", "brightness": [0.8, 1.2], "p": 1.0},
        {"name": "ColorJitter", "brightness": 0.2, "contrast": [0.5, 1.5], "hue": 0.1},
        {"name": "RandomGrayscale", "p": 1.0},
        {"name": "GaussianBlur", "kernel_size": 3},
        {"name": "SanitizeBoundingBoxes"},
    ],
)
def test_torchvisions_transforms_work_from_a_block_with_and_without_boxes(block, num_boxes):
    transforms = build(block)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        image = torch.randint(256, (3, 40, 50), dtype=torch.uint8, generator=generator)
        corners = torch.rand(num_boxes, 2, generator=generator) * 20
        boxes = torch.cat([corners, corners + 10], dim=1)
        sample = transform_sample(record(image, boxes), transforms)
        instances = sample["instances"]
        assert sample["image"].dtype == torch.uint8
        assert type(sample["image"]) is torch.Tensor
        assert len(instances) == len(instances.gt_classes) <= num_boxes
        assert instances.gt_boxes.shape[1:] == (4,)
        limit = torch.tensor([*sample["image"].shape[:0:-1]] * 2)
        assert ((instances.gt_boxes >= 0) & (instances.gt_boxes <= limit)).all()


FLOATS = {"name": "ResizeShortestEdge", "min_size": 64, "method": "interpolate"}
JITTER = {"name": "ColorJitter", "brightness": 0.2}
CHOICE = {"name": "RandomChoice"}


@pytest.mark.parametrize("box", [(0, 0, 10, 5), (3, 7, 20, 30)])
def test_what_moves_pixels_may_follow_a_resize_to_floats(box):
    crop = {"name": "RandomCrop", "size": [56, 56]}
    transforms = build(JITTER, FLOATS, FLIP, {"name": "RandomRotate90", "p": 1.0}, crop)
    for seed in range(8):
        torch.manual_seed(seed)
        sample = transform_sample(painted(32, 48, box), transforms)
        assert sample["image"].dtype == torch.float32
        white = painted_box(sample["image"])
        found = sample["instances"].gt_boxes.tolist()
        assert (white is None) == (not found)
        assert not found or found[0] == pytest.approx(white, abs=1.1)


@pytest.mark.parametrize(
    "blocks",
    [
        [FLOATS, JITTER],
        [FLOATS, FLIP, {"name": "GaussianNoise"}],
        [{**CHOICE, "transforms": [FLOATS, FLOATS]}, JITTER],
        [FLOATS, {"name": "RandomApply", "transforms": [{**CHOICE, "transforms": [JITTER]}]}],
        [{"name": "Compose", "transforms": [FLOATS, JITTER]}],
    ],
)
def test_what_reads_colours_is_refused_after_a_resize_to_floats(blocks):
    with pytest.raises(ConfigError, match=r"comes after ResizeShortestEdge .* put it before"):
        build(*blocks)


def test_random_erasing_fills_a_rectangle_of_bytes_with_a_colour():
    [erase] = build({"name": "RandomErasing", "p": 1.0, "value": [124, 116, 104]})
    torch.manual_seed(0)
    image = erase(tv_tensors.Image(torch.zeros(3, 20, 20, dtype=torch.uint8)))
    erased = (image > 0).any(dim=0)
    rows, columns = erased.any(dim=1), erased.any(dim=0)
    assert torch.equal(erased, rows[:, None] & columns)
    assert 0.02 * 400 <= erased.sum() <= 0.33 * 400 + 20
    assert image.dtype == torch.uint8
    assert {tuple(pixel) for pixel in image[:, erased].T.tolist()} == {(124, 116, 104)}
