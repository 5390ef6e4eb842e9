import pytest
import torch
import torchvision

from detlite.modeling import MATCHER_REGISTRY, MaxIoUMatcher
from detlite.ops import match_anchors
from detlite.registry import Block

# IoU of the anchors with the only ground truth: 0.5, 0.4, 0.3, 0.
GT_BOXES = torch.tensor([[0.0, 0, 10, 10]])
ANCHORS = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 4], [0, 0, 10, 3], [20, 20, 30, 30]])


def test_the_defaults_are_the_papers():
    matcher = MATCHER_REGISTRY.build(Block(name="MaxIoUMatcher"))
    matched, labels = matcher([GT_BOXES, GT_BOXES[:0]], ANCHORS)
    assert labels.tolist() == [[1, -1, 0, 0], [0, 0, 0, 0]]
    assert not matched.any()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"foreground_thresh": 0.4, "background_thresh": 0.4}, [1, 1, 0, 0]),
        ({"foreground_thresh": 0.9, "background_thresh": 0.35}, [1, -1, 0, 0]),
        ({"foreground_thresh": 0.9, "allow_low_quality": False}, [-1, -1, 0, 0]),
        ({"background_thresh": 0.0}, [1, -1, -1, -1]),
    ],
)
def test_labels_follow_the_keys(arguments, expected):
    matcher = MaxIoUMatcher(**arguments)
    assert matcher([GT_BOXES], ANCHORS)[1].tolist() == [expected]
    thresholds = matcher.foreground_thresh, matcher.background_thresh
    both = match_anchors(GT_BOXES, ANCHORS, *thresholds, matcher.allow_low_quality)
    assert both[1].tolist() == expected


def test_crossed_thresholds_are_refused():
    with pytest.raises(ValueError, match=r"must not exceed foreground_thresh, got 0.6 and 0.5"):
        MaxIoUMatcher(foreground_thresh=0.5, background_thresh=0.6)


def reassigned(gt_boxes, anchors, foreground_thresh, background_thresh):
    """The rule over the whole IoU matrix, anchor by anchor in plain Python."""
    iou = torchvision.ops.box_iou(gt_boxes, anchors).tolist()
    matched, labels = [], []
    for r in range(len(anchors)):
        column = [row[r] for row in iou]
        best = max(column, default=0)
        labels.append(1 if best >= foreground_thresh else -1 if best >= background_thresh else 0)
        matched.append(column.index(best) if column else 0)
        for g, row in enumerate(iou):
            if row[r] == max(row):
                matched[r], labels[r] = g, 1
    return matched, labels


@pytest.mark.parametrize("num_gt", [(1,), (7,), (30, 0, 2), (0,)])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.9, 0.9), (0.7, 0.3)])
def test_reassigned_anchors_belong_to_the_last_ground_truth_whose_best_they_are(num_gt, thresholds):
    generator = torch.Generator().manual_seed(sum(num_gt))

    def draw(count, side):
        # Whole numbers and few places: many overlaps are equal to the bit.
        corner = torch.randint(0, 12, (count, 2), generator=generator) * 4.0
        size = torch.randint(1, side, (count, 2), generator=generator) * 8.0
        return torch.cat((corner, corner + size), dim=1)

    gt_boxes, anchors = [draw(count, 5) for count in num_gt], draw(300, 4)
    matcher = MaxIoUMatcher(
        foreground_thresh=thresholds[0], background_thresh=thresholds[1], reassign_low_quality=True
    )
    results = [value.tolist() for value in matcher(gt_boxes, anchors)]
    expected = [reassigned(boxes, anchors, *thresholds) for boxes in gt_boxes]
    assert results == [[*part] for part in zip(*expected, strict=True)]


def test_reassigning_overrules_the_greater_overlap_and_the_later_ground_truth_wins():
    # IoU of the only anchor with the three: 1, 0.8 and 0.5; all have it as their best.
    anchor = torch.tensor([[0.0, 0, 10, 10]])
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5]])
    for count, last in ((1, 0), (2, 1), (3, 2)):
        matched, labels = MaxIoUMatcher(reassign_low_quality=True)([gt_boxes[:count]], anchor)
        assert (matched.item(), labels.item()) == (last, 1)
        assert MaxIoUMatcher()([gt_boxes[:count]], anchor)[0].item() == 0


def test_where_reassigning_a_ground_truth_without_overlap_takes_all_anchors():
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [70, 70, 90, 90]])
    matched, labels = MaxIoUMatcher(reassign_low_quality=True)([gt_boxes], ANCHORS)
    assert (matched.tolist(), labels.tolist()) == ([[1] * 4], [[1] * 4])
    assert MaxIoUMatcher()([gt_boxes], ANCHORS)[1].tolist() == [[1, -1, 0, 0]]
    matched, labels = MaxIoUMatcher(reassign_low_quality=True)([gt_boxes], ANCHORS[:0])
    assert matched.shape == labels.shape == (1, 0)


def test_reassigning_needs_low_quality_matches():
    with pytest.raises(ValueError, match="reassign_low_quality needs allow_low_quality"):
        MaxIoUMatcher(allow_low_quality=False, reassign_low_quality=True)
