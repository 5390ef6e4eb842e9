import pytest
import torch

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
