import pytest
import torch
import torchvision
from torchvision.models.detection._utils import Matcher

from detlite.ops import match_anchors


def anchors_on_a_grid() -> torch.Tensor:
    """Squares of whole sizes on whole places, so that many overlap a box equally."""
    places = torch.cartesian_prod(torch.arange(0, 200, 8), torch.arange(0, 200, 8)).float()
    sizes = torch.tensor([16.0, 32.0, 64.0])
    low = places[:, None] - sizes[None, :, None] / 2
    return torch.cat((low, low + sizes[None, :, None]), dim=-1).reshape(-1, 4)


@pytest.mark.parametrize("allow_low_quality", [False, True])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.7, 0.3), (0.5, 0.5), (1.0, 0.0)])
@pytest.mark.parametrize("num_gt", [1, 2, 30])
@pytest.mark.parametrize("whole", [False, True])
def test_matching_equals_torchvision(num_gt, thresholds, allow_low_quality, whole, make_boxes):
    gt_boxes = make_boxes(num_gt, 11)
    if whole:
        gt_boxes = torch.cat((gt_boxes / 8, gt_boxes[:3] / 8)).round() * 8
        gt_boxes[:, 2:] = torch.max(gt_boxes[:, 2:], gt_boxes[:, :2] + 8)
    anchors = anchors_on_a_grid()
    matched, labels = match_anchors(gt_boxes, anchors, *thresholds, allow_low_quality)
    expected = Matcher(*thresholds, allow_low_quality)(torchvision.ops.box_iou(gt_boxes, anchors))
    foreground = expected >= 0
    assert torch.equal(labels == 1, foreground)
    assert torch.equal(labels == 0, expected == Matcher.BELOW_LOW_THRESHOLD)
    assert torch.equal(labels == -1, expected == Matcher.BETWEEN_THRESHOLDS)
    assert torch.equal(matched[foreground], expected[foreground])
    assert (matched.dtype, labels.dtype) == (torch.int64, torch.int8)


def test_labels_of_hand_worked_overlaps():
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [100, 0, 110, 10]])
    # IoU with the first: 1, 0.5, 0.45, 0.4, 0.3; with the second 0.2; with none.
    anchors = torch.tensor([[0.0, 0, 10, width] for width in (10, 5, 4.5, 4, 3)])
    anchors = torch.cat((anchors, torch.tensor([[100.0, 0, 110, 2], [50, 50, 60, 60]])))
    matched, labels = match_anchors(gt_boxes, anchors, 0.5, 0.4, False)
    assert labels.tolist() == [1, 1, -1, -1, 0, 0, 0]
    assert matched.tolist() == [0, 0, 0, 0, 0, 1, 0]
    matched, labels = match_anchors(gt_boxes, anchors, 0.5, 0.4, True)
    assert labels.tolist() == [1, 1, -1, -1, 0, 1, 0]
    assert matched.tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_the_first_of_equal_ground_truths_wins():
    box = [0.0, 0, 10, 10]
    matched, labels = match_anchors(
        torch.tensor([[50.0, 50, 60, 60], box, box]), torch.tensor([box]), 0.5, 0.4, True
    )
    assert (matched.tolist(), labels.tolist()) == ([1], [1])


def test_a_low_quality_match_keeps_the_ground_truth_that_the_anchor_overlaps_most():
    # The anchor is the best of the small box, yet overlaps the large one more.
    gt_boxes = torch.tensor([[0.0, 0, 3, 10], [0, 0, 10, 3]])
    anchors = torch.tensor([[0.0, 0, 3, 6], [0, 0, 10, 2]])
    gt_boxes = torch.cat((gt_boxes, torch.tensor([[1.0, 0, 2, 1]])))
    matched, labels = match_anchors(gt_boxes, anchors, 0.9, 0.8, True)
    assert (matched.tolist(), labels.tolist()) == ([0, 1], [1, 1])


def test_all_equally_good_anchors_become_foreground():
    anchors = torch.tensor([[0.0, 0, 4, 4], [6, 0, 10, 4], [0, 0, 2, 2]])
    _, labels = match_anchors(torch.tensor([[0.0, 0, 10, 4]]), anchors, 0.9, 0.8, True)
    assert labels.tolist() == [1, 1, 0]


def test_without_ground_truth_all_anchors_are_background():
    matched, labels = match_anchors(torch.zeros(0, 4), anchors_on_a_grid(), 0.5, 0.4, True)
    assert len(matched) == len(labels) == 25 * 25 * 3
    assert not matched.any()
    assert not labels.any()


def test_without_anchors_there_is_nothing_to_match(make_boxes):
    for num_gt in (0, 3):
        matched, labels = match_anchors(make_boxes(num_gt), torch.zeros(0, 4), 0.5, 0.4, True)
        assert matched.shape == labels.shape == (0,)


def test_bad_ground_truth_is_given_to_no_anchor(bad_boxes):
    anchors = torch.cat((anchors_on_a_grid(), torch.tensor([[0.0, 0, 10, 10]])))
    _, labels = match_anchors(bad_boxes, anchors, 0.5, 0.4, True)
    assert not labels.any()
    good = torch.tensor([[3.0, 5, 30, 40]])
    matched, labels = match_anchors(torch.cat((bad_boxes, good)), anchors, 0.5, 0.4, True)
    assert torch.equal(labels, match_anchors(good, anchors, 0.5, 0.4, True)[1])
    assert (matched[labels == 1] == len(bad_boxes)).all()


def test_bad_anchors_are_background(bad_boxes):
    _, labels = match_anchors(torch.tensor([[0.0, 0, 10, 10]]), bad_boxes, 0.5, 0.4, True)
    assert not labels.any()


@pytest.mark.parametrize(
    ("foreground", "background"), [(0.4, 0.5), (1.1, 0.5), (0.5, -0.1), (float("nan"), 0.4)]
)
def test_matching_refuses_impossible_thresholds(foreground, background):
    with pytest.raises(ValueError, match=f"background {background}, foreground {foreground}"):
        match_anchors(torch.zeros(1, 4), torch.zeros(1, 4), foreground, background, True)


def test_matching_says_which_boxes_are_wrong():
    with pytest.raises(ValueError, match=r"gt_boxes must have shape \(N, 4\), got \(0,\)"):
        match_anchors(torch.zeros(0), torch.zeros(1, 4), 0.5, 0.4, True)
    with pytest.raises(ValueError, match="anchors must be of a floating type"):
        match_anchors(torch.zeros(1, 4), torch.zeros(1, 4).int(), 0.5, 0.4, True)
