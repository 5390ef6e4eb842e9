import numpy as np
import pytest
import torch

from detlite.structures import Instances
from detlite.visualization.objects import DrawnObjects

NAN, INF = float("nan"), float("inf")


def detections(boxes, scores):
    return Instances((50, 100), pred_boxes=torch.tensor(boxes), scores=torch.tensor(scores))


@pytest.mark.parametrize(
    "broken",
    [
        [NAN, 0, 10, 10],
        [0, 0, INF, 10],
        [-INF, 0, 10, 10],
        [30, 0, 10, 10],
        [0, 30, 10, 10],
        [100, 0, 120, 20],
        [0, -20, 10, 0],
    ],
)
def test_a_box_that_cannot_be_drawn_is_skipped_and_counted(broken, caplog):
    good = [20.0, 20.0, 60.0, 40.0]
    drawn = DrawnObjects.read(detections([broken, good], [0.9, 0.8]), 0.0)
    assert drawn.boxes.tolist() == [good]
    assert "1 of 2 objects not drawn" in caplog.text


def test_a_score_that_is_not_finite_is_skipped_and_counted(caplog):
    drawn = DrawnObjects.read(detections([[5.0, 5.0, 40.0, 40.0]] * 2, [NAN, 0.5]), 0.0)
    assert drawn.scores.tolist() == [0.5]
    assert "1 of 2 objects not drawn" in caplog.text


@pytest.mark.parametrize("box", [[30.0, 30, 30, 30], [-5.0, -5, 1, 1], [0.0, 0, 1e30, 1e30]])
def test_a_box_of_which_something_is_seen_is_kept_without_a_word(box, caplog):
    assert len(DrawnObjects.read(detections([box], [0.5]), 0.0)) == 1
    assert not caplog.records


@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 2, 4)])
def test_boxes_of_another_shape_are_refused(shape):
    objects = Instances((50, 100), gt_boxes=torch.zeros(shape))
    with pytest.raises(ValueError, match=r"gt_boxes must have shape \(D, 4\), got"):
        DrawnObjects.read(objects, 0.0)


def test_fields_may_be_lists():
    objects = Instances((50, 100), gt_boxes=[[1, 2, 30, 40]], gt_classes=[3])
    drawn = DrawnObjects.read(objects, 0.0)
    assert np.array_equal(drawn.boxes, [[1, 2, 30, 40]])
    assert drawn.classes.tolist() == [3]
