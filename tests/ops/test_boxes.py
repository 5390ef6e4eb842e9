import pytest
import torch
import torchvision

from detlite.ops import box_iou, clip_boxes, generalized_box_iou

PAIRWISE = [
    (box_iou, torchvision.ops.box_iou, 0.0),
    (generalized_box_iou, torchvision.ops.generalized_box_iou, -1.0),
]


@pytest.mark.parametrize(("op", "oracle", "nothing"), PAIRWISE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 5), (5, 0), (1, 1), (40, 70)])
def test_overlaps_of_every_pair_agree_with_torchvision(
    op, oracle, nothing, dtype, n, m, make_boxes
):
    boxes1, boxes2 = make_boxes(n, 1, dtype), make_boxes(m, 2, dtype)
    overlap = op(boxes1, boxes2)
    assert overlap.shape == (n, m)
    assert overlap.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(overlap, oracle(boxes1, boxes2), rtol=tolerance, atol=tolerance)


def test_iou_of_hand_worked_boxes():
    box = torch.tensor([[0.0, 0, 2, 2]])
    others = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], [1, 1, 3, 3], [4, 0, 6, 2]])
    assert box_iou(box, others)[0].tolist() == pytest.approx([1, 1 / 3, 0, 1 / 7, 0])
    giou = [1, 1 / 3, 0, 1 / 7 - 2 / 9, -1 / 3]
    assert generalized_box_iou(box, others)[0].tolist() == pytest.approx(giou)


@pytest.mark.parametrize(("op", "oracle", "nothing"), PAIRWISE)
def test_bad_boxes_overlap_nothing_not_even_themselves(op, oracle, nothing, bad_boxes, make_boxes):
    good = torch.cat((make_boxes(5), torch.tensor([[0.0, 0, 10, 10]])))
    for overlap in (op(bad_boxes, good), op(good, bad_boxes), op(bad_boxes, bad_boxes)):
        assert (overlap == nothing).all()


@pytest.mark.parametrize("op", [box_iou, generalized_box_iou])
@pytest.mark.parametrize(
    ("boxes1", "boxes2", "message"),
    [
        (torch.zeros(3, 5), torch.zeros(3, 4), r"boxes1 must have shape \(N, 4\), got \(3, 5\)"),
        (torch.zeros(3, 4), torch.zeros(4), r"boxes2 must have shape \(N, 4\), got \(4,\)"),
        (torch.zeros(3, 4), torch.zeros(3, 4).int(), "boxes2 must be of a floating type, got .*32"),
        (torch.zeros(3, 4), torch.zeros(3, 4).double(), "agree in type and device, got .*float64"),
    ],
)
def test_overlaps_refuse_what_are_no_boxes(op, boxes1, boxes2, message):
    with pytest.raises(ValueError, match=message):
        op(boxes1, boxes2)


def test_clipping_moves_corners_onto_the_border_of_each_image():
    boxes = torch.tensor([[-5.0, -5, 15, 25], [2, 3, 4, 5], [30, 40, 50, 60], [-9, -9, -1, -1]])
    clipped = clip_boxes(boxes.expand(2, 4, 4), torch.tensor([[20, 10], [100, 100]]))
    assert clipped[0].tolist() == [[0, 0, 10, 20], [2, 3, 4, 5], [10, 20, 10, 20], [0, 0, 0, 0]]
    assert clipped[1].tolist() == [[0, 0, 15, 25], [2, 3, 4, 5], [30, 40, 50, 60], [0, 0, 0, 0]]
    expected = torchvision.ops.clip_boxes_to_image(boxes, (20, 10))
    assert torch.equal(clip_boxes(boxes, torch.tensor([20, 10])), expected)
