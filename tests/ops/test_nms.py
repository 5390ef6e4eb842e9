import math
from fractions import Fraction

import pytest
import torch
import torchvision

from detlite.ops import batched_nms, box_iou, nms, nms_padded

THRESHOLDS = [0.0, 0.1, 0.3, 0.5, 0.7, 1.0]


def nms_class_by_class(boxes, scores, classes, threshold):
    """Torchvision's exact way; its batched_nms moves few boxes apart, which rounds them."""
    kept = [torch.zeros(0, dtype=torch.int64)]
    for class_index in classes.unique():
        members = (classes == class_index).nonzero().flatten()
        kept.append(members[torchvision.ops.nms(boxes[members], scores[members], threshold)])
    kept = torch.cat(kept).sort().values
    return kept[scores[kept].sort(stable=True, descending=True).indices]


def draw_scores(num_boxes, dtype, tied):
    scores = torch.rand(num_boxes, generator=torch.Generator().manual_seed(9), dtype=dtype)
    return (scores * 7).round() if tied else scores


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_boxes", [0, 1, 2, 500, 3000])
def test_nms_equals_torchvision(num_boxes, dtype, tied, threshold, make_boxes, make_clusters):
    scores = draw_scores(num_boxes, dtype, tied)
    for boxes in (make_boxes(num_boxes, 3, dtype), make_clusters(num_boxes, 4, dtype)):
        expected = torchvision.ops.nms(boxes, scores, threshold)
        assert nms(boxes, scores, threshold).tolist() == expected.tolist()


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("num_boxes", [0, 1, 500, 3000])
def test_batched_nms_equals_torchvision_class_by_class(num_boxes, threshold, make_clusters):
    boxes = make_clusters(num_boxes)
    scores = draw_scores(num_boxes, torch.float32, tied=True)
    classes = torch.randint(-2, 3, (num_boxes,), generator=torch.Generator().manual_seed(5))
    expected = nms_class_by_class(boxes, scores, classes, threshold)
    assert batched_nms(boxes, scores, classes, threshold).tolist() == expected.tolist()


def test_duplicates_leave_the_first_of_the_best_score(make_boxes):
    boxes = make_boxes(1).repeat(2500, 1)
    scores = torch.full((2500,), 0.5)
    assert nms(boxes, scores, 0.5).tolist() == [0]
    scores[[1700, 2402]] = 0.7
    assert nms(boxes, scores, 0.5).tolist() == [1700]
    # IoU 1 does not exceed the threshold 1.
    assert len(nms(boxes, scores, 1.0)) == 2500
    groups = torch.arange(2500) % 3
    assert sorted(batched_nms(boxes, scores, groups, 0.5).tolist()) == [0, 1, 1700]


@pytest.mark.parametrize("percent", [7, 10, 20, 30, 33, 40, 60, 70, 80, 90])
def test_a_float32_iou_is_compared_with_the_exact_threshold(percent):
    # The IoU of the two boxes is the float32 nearest to the threshold, a little above or below.
    boxes = torch.tensor([[0.0, 0, 100, 1], [0, 0, percent, 1]])
    threshold = percent / 100
    exceeds = Fraction(box_iou(boxes, boxes)[0, 1].item()) > Fraction(threshold)
    kept = nms(boxes, torch.tensor([0.9, 0.8]), threshold)
    assert len(kept) == (1 if exceeds else 2)
    expected = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), threshold)
    assert kept.tolist() == expected.tolist()


def test_a_box_that_was_dropped_drops_no_other():
    # A chain: each overlaps the next by more than the threshold, the one after it by less.
    boxes = torch.tensor([[i, 0, i + 3, 1] for i in range(3000)], dtype=torch.float32)
    scores = torch.linspace(1, 0, 3000)
    assert nms(boxes, scores, 0.3).tolist() == list(range(0, 3000, 2))


def test_bad_boxes_are_kept_and_drop_nothing(bad_boxes, make_boxes):
    good = make_boxes(30)
    boxes = torch.cat((bad_boxes, bad_boxes, good))
    scores = torch.linspace(1, 0.1, len(boxes))
    expected = torchvision.ops.nms(good, scores[-30:], 0.2) + 2 * len(bad_boxes)
    kept = nms(boxes, scores, 0.2).tolist()
    assert kept == [*range(2 * len(bad_boxes)), *expected.tolist()]


def test_a_nan_score_is_the_lowest():
    box = [0.0, 0, 10, 10]
    boxes = torch.tensor([box, box, [50, 50, 60, 60]])
    assert nms(boxes, torch.tensor([math.nan, 0.1, math.nan]), 0.5).tolist() == [1, 2]
    assert nms(boxes, torch.tensor([math.nan, -math.inf, math.inf]), 0.5).tolist() == [2, 0]


@pytest.mark.parametrize("max_detections", [1, 10, 5000])
def test_padded_nms_is_batched_nms_of_each_image(max_detections, make_clusters):
    boxes = torch.stack([make_clusters(1500, seed) for seed in range(3)])
    scores = torch.rand(3, 1500, generator=torch.Generator().manual_seed(1))
    scores[0, scores[0] < 0.9] = -math.inf
    scores[1] = -math.inf
    groups = torch.randint(4, (3, 1500), generator=torch.Generator().manual_seed(2))
    indices, counts = nms_padded(boxes, scores, groups, 0.5, max_detections)
    assert indices.shape == (3, max_detections)
    assert (indices.dtype, counts.dtype) == (torch.int64, torch.int64)
    for i in range(3):
        kept = nms_class_by_class(boxes[i], scores[i], groups[i], 0.5)
        kept = kept[scores[i, kept] > -math.inf][:max_detections]
        assert counts[i] == len(kept)
        assert indices[i, : counts[i]].tolist() == kept.tolist()
        assert (indices[i, counts[i] :] == -1).all()


def test_padded_nms_takes_a_nan_score_for_no_candidate():
    boxes = torch.tensor([[[0.0, 0, 1, 1], [5, 5, 6, 6]]])
    scores = torch.tensor([[math.nan, 0.5]])
    indices, counts = nms_padded(boxes, scores, torch.zeros(1, 2, dtype=torch.int64), 0.5, 3)
    assert indices.tolist() == [[1, -1, -1]]
    assert counts.tolist() == [1]


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_padded_nms_takes_empty_batches_and_no_candidates(shape):
    groups = torch.zeros(shape, dtype=torch.int64)
    indices, counts = nms_padded(torch.zeros(*shape, 4), torch.zeros(shape), groups, 0.5, 3)
    assert indices.tolist() == [[-1, -1, -1]] * shape[0]
    assert counts.tolist() == [0] * shape[0]


@pytest.mark.parametrize(
    ("boxes", "scores", "groups", "threshold", "message"),
    [
        (torch.zeros(3, 5), torch.zeros(3), [0] * 3, 0.5, r"boxes must have .* got \(3, 5\)"),
        (torch.zeros(3, 4).long(), torch.zeros(3), [0] * 3, 0.5, "floating type, got torch.int64"),
        (torch.zeros(3, 4), torch.zeros(2), [0] * 3, 0.5, r"scores .* \(3,\), got \(2,\)"),
        (torch.zeros(3, 4), torch.zeros(3), [0] * 2, 0.5, r"groups .* \(3,\) integers, got \(2,\)"),
        (torch.zeros(3, 4), torch.zeros(3), [0.0] * 3, 0.5, "groups .* integers, got .*float32"),
        (
            torch.zeros(3, 4),
            torch.zeros(3).int(),
            [0] * 3,
            0.5,
            "scores must be of a floating type",
        ),
        (torch.zeros(3, 4), torch.zeros(3).to("meta"), [0] * 3, 0.5, "scores .* cpu .* got meta"),
        (torch.zeros(3, 4), torch.zeros(3), [0] * 3, 1.5, r"iou_threshold .* \[0, 1\], got 1.5"),
        (torch.zeros(3, 4), torch.zeros(3), [0] * 3, math.nan, "iou_threshold .* got nan"),
    ],
)
def test_nms_says_what_is_wrong(boxes, scores, groups, threshold, message):
    with pytest.raises(ValueError, match=message):
        batched_nms(boxes, scores, torch.tensor(groups), threshold)


@pytest.mark.parametrize(
    ("scores", "threshold", "message"),
    [
        (torch.zeros(2, 4), 0.5, r"\(B, N, 4\).* got \(2, 3, 4\), \(2, 4\) and \(2, 3\)"),
        (torch.zeros(2, 3).double(), 0.5, "of one type, got torch.float32 and torch.float64"),
        (torch.zeros(2, 3).to("meta"), 0.5, "scores must be on cpu as boxes, got meta"),
        (torch.zeros(2, 3), -0.1, "got -0.1"),
    ],
)
def test_padded_nms_says_what_is_wrong(scores, threshold, message):
    with pytest.raises(ValueError, match=message):
        nms_padded(torch.zeros(2, 3, 4), scores, torch.zeros(2, 3).long(), threshold, 5)


@pytest.mark.parametrize(
    ("groups", "max_detections", "message"),
    [
        (torch.zeros(2, 3), 5, "groups must be integers, got torch.float32"),
        (torch.zeros(2, 3).long().to("meta"), 5, "groups must be on cpu as boxes, got meta"),
        (torch.zeros(2, 3).long(), -1, "max_detections must not be negative, got -1"),
    ],
)
def test_padded_nms_refuses_groups_and_limits_that_cannot_be(groups, max_detections, message):
    with pytest.raises(ValueError, match=message):
        nms_padded(torch.zeros(2, 3, 4), torch.zeros(2, 3), groups, 0.5, max_detections)
