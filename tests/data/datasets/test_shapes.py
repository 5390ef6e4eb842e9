import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from detlite.data.datasets import Shapes
from detlite.data.datasets.shape_drawing import CLASS_NAMES, Layout, draw_image, place_shapes
from detlite.errors import DataError


def digest(dataset):
    content = hashlib.sha256(dataset.boxes_xywh.tobytes() + dataset.classes.tobytes())
    for i in range(len(dataset)):
        content.update(dataset[i]["image"].contiguous().numpy().tobytes())
    return content.hexdigest()


def test_the_same_arguments_give_the_same_images_in_another_process():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_shapes import *; "
        "print(digest(Shapes(num_images=5, seed=3)))"
    )
    folder = __file__.rpartition("/")[0]
    result = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert result.stdout.strip() == digest(Shapes(num_images=5, seed=3)), result.stderr


def test_an_image_does_not_depend_on_how_many_there_are_or_which_came_before():
    few, many = Shapes(num_images=4, seed=1), Shapes(num_images=9, seed=1)
    assert torch.equal(many[3]["image"], few[3]["image"])
    assert torch.equal(many[3]["boxes"], few[3]["boxes"])


def test_another_seed_gives_other_images():
    first, second = Shapes(num_images=2, seed=0), Shapes(num_images=2, seed=1)
    assert not torch.equal(first[0]["image"], second[0]["image"])
    assert not torch.equal(first[1]["image"], second[0]["image"])


def test_samples_have_the_shapes_of_the_contract():
    dataset = Shapes(num_images=3, image_size=(96, 160))
    sample = dataset[2]
    assert sample["image"].shape == (3, 96, 160)
    assert sample["image"].dtype == torch.uint8
    assert (sample["image_id"], sample["height"], sample["width"]) == (3, 96, 160)
    assert list(dataset.image_ids) == [1, 2, 3]
    assert dataset.class_names == ("circle", "triangle", "cross")
    assert dataset.name == "shapes_0"


@pytest.mark.parametrize("class_index", range(len(CLASS_NAMES)))
def test_boxes_are_tight_around_the_painted_pixels(class_index):
    layout = Layout((128, 96), len(CLASS_NAMES), 6, (0.1, 0.6), 0.3, 0.0)
    shapes = [
        (index, shape)
        for index in range(60)
        for shape in place_shapes(5, index, layout)
        if shape.class_index == class_index
    ]
    assert len(shapes) > 10
    for index, shape in shapes:
        ground = draw_image(5, index, [], layout.image_size)
        painted = (draw_image(5, index, [shape], layout.image_size) != ground).any(axis=2)
        ys, xs = np.nonzero(painted)
        seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        # Pixels that are covered by less than half lie outside the box, in a fringe of one pixel.
        assert np.abs(seen - shape.box).max() <= 1


def test_shapes_leave_each_other_room_and_lie_in_the_image():
    dataset = Shapes(num_images=200, num_classes=6, empty_fraction=0.0)
    assert not dataset.degenerate.any()
    assert {*dataset.classes.tolist()} == {0, 1, 2, 3, 4, 5}
    assert (dataset.boxes_xywh[:, :2] >= 0).all()
    assert (dataset.boxes_xywh[:, :2] + dataset.boxes_xywh[:, 2:] <= 128).all()
    assert dataset.num_training_boxes().min() >= 1
    assert dataset.num_training_boxes().max() <= 6


def test_some_images_are_empty():
    counts = Shapes(num_images=400, empty_fraction=0.25).num_training_boxes()
    assert 0.15 < (counts == 0).mean() < 0.35


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 7}, "num_classes must be 1 to 6, got 7"),
        ({"size_range": (0.6, 0.1)}, r"size_range .* got \[0.6, 0.1\]"),
        ({"size_range": (0.0, 0.5)}, r"size_range .* got \[0.0, 0.5\]"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        Shapes(num_images=1, **arguments)
