"""Pictures of classes, and which picture is drawn for which model."""

import numpy as np
import pytest
import torch

from detlite.structures import Instances
from detlite.visualization import (
    Visualizer,
    class_color,
    draw_beside_truth,
    draw_found,
    draw_truth,
    found_in,
)

NAMES = ("cat", "dog", "horse", "emu")
SCORES = torch.tensor([0.05, 0.6, 0.3, 0.05])


def colors(picture):
    """How many pixels of the plate color of each class, and the last row that has any."""
    counts = [(picture == class_color(k)).all(axis=2) for k in range(len(NAMES))]
    return [(int(c.sum()), int(np.flatnonzero(c.any(axis=1)).max(initial=-1))) for c in counts]


def visualizer(**options):
    return Visualizer(np.full((120, 160, 3), 128, np.uint8), NAMES, **options)


def test_the_likeliest_classes_stand_one_under_the_other():
    (cat, _), (dog, dog_row), (horse, horse_row), (emu, _) = colors(
        visualizer(score_thresh=0.2).draw_classes(SCORES)
    )
    assert min(dog, horse) > 100
    assert dog_row < horse_row < 40
    assert cat == emu == 0


def test_the_best_class_is_written_whatever_its_score_and_the_true_one_above_it():
    drawn = colors(visualizer(score_thresh=0.99).draw_classes(SCORES, gt_class=3))
    assert [count > 0 for count, _ in drawn] == [False, True, False, True]
    assert drawn[3][1] < drawn[1][1]


@pytest.mark.parametrize("size", [(8, 8), (3, 300), (300, 3)])
def test_an_image_too_small_for_a_name_stays_as_it_is_or_takes_what_fits(size):
    image = np.full((*size, 3), 128, np.uint8)
    assert Visualizer(image, NAMES).draw_classes(SCORES, gt_class=0).shape == image.shape


def test_a_sample_and_an_output_say_what_is_drawn():
    painter = visualizer()
    boxes = Instances((120, 160), gt_boxes=torch.tensor([[20.0, 30, 90, 100]]))
    sample = {"gt_class": torch.tensor(3)}
    scores = found_in({"scores": SCORES})
    found = found_in({"instances": boxes})
    assert found is boxes
    for drawn, expected in (
        (draw_found(painter, scores), painter.draw_classes(SCORES)),
        (draw_found(painter, boxes), painter.draw(boxes)),
        (draw_truth(painter, sample), painter.draw_classes(gt_class=3)),
        (draw_truth(painter, {"instances": boxes}), painter.draw(boxes)),
        (
            draw_beside_truth(painter, sample, scores),
            painter.draw_classes(SCORES, gt_class=3),
        ),
        (
            draw_beside_truth(painter, {"instances": boxes}, boxes),
            painter.draw_comparison(boxes, boxes),
        ),
    ):
        assert np.array_equal(drawn, expected)
