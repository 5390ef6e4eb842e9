import math
import warnings

import pytest
import torch
import torchvision

from detlite.modeling.losses import CIoULoss, DIoULoss, GIoULoss, IoULoss

with warnings.catch_warnings():
    # fvcore still scripts its focal loss on import, which torch has deprecated.
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import giou_loss

LOSSES = [IoULoss, GIoULoss, DIoULoss, CIoULoss]


def iou_loss(predicted, target):
    return 1 - torchvision.ops.box_iou(predicted, target).diag()


ORACLES = [
    (IoULoss, iou_loss),
    (GIoULoss, giou_loss),
    (GIoULoss, torchvision.ops.generalized_box_iou_loss),
    (DIoULoss, torchvision.ops.distance_box_iou_loss),
    (CIoULoss, torchvision.ops.complete_box_iou_loss),
]


def draw_pairs(apart, dtype=torch.float32, num_boxes=300):
    """Boxes and targets that are near each other, or mostly far from each other."""
    generator = torch.Generator().manual_seed(apart)
    corner, size, moved, stretched = (
        torch.rand(num_boxes, 2, generator=generator, dtype=dtype) for _ in range(4)
    )
    corner, size = 200 * corner, 5 + 95 * size
    other_corner, other_size = corner + (2 * moved - 1) * apart, size * (0.5 + stretched)
    predicted = torch.cat((corner, corner + size), dim=1).requires_grad_()
    return predicted, torch.cat((other_corner, other_corner + other_size), dim=1)


@pytest.mark.parametrize(("loss_class", "oracle"), ORACLES)
@pytest.mark.parametrize("apart", [5, 400])
@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_value_and_gradient_agree_with_the_peers(loss_class, oracle, apart, weight):
    predicted, target = draw_pairs(apart)
    loss, expected = (
        loss_class(weight=weight)(predicted, target),
        weight * oracle(predicted, target),
    )
    assert loss.shape == (len(target),)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(value.sum(), predicted)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss_class", [IoULoss, GIoULoss, DIoULoss])
@pytest.mark.parametrize("apart", [5, 400])
def test_gradient_is_that_of_the_value(loss_class, apart):
    predicted, target = draw_pairs(apart, torch.float64, 6)
    assert torch.autograd.gradcheck(lambda x: loss_class()(x, target), predicted)


def test_complete_iou_punishes_another_shape_about_the_same_centre():
    predicted = torch.tensor([[0.0, 0, 20, 5]])
    target = torch.tensor([[5.0, -2.5, 15, 7.5]])
    loss = CIoULoss()(predicted, target)
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(4)) ** 2
    iou = 50 / 150
    assert loss.item() == pytest.approx(1 - iou + v * v / (1 - iou + v))


@pytest.mark.parametrize(
    ("loss_class", "expected"),
    [
        (IoULoss, [0, 6 / 7, 1]),
        (GIoULoss, [0, 6 / 7 + 2 / 9, 1 + 4 / 12]),
        (DIoULoss, [0, 6 / 7 + 2 / 18, 1 + 16 / 40]),
        (CIoULoss, [0, 6 / 7 + 2 / 18, 1 + 16 / 40]),
    ],
)
def test_hand_worked_values(loss_class, expected):
    predicted = torch.tensor([[0.0, 0, 2, 2]]).repeat(3, 1)
    target = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [4, 0, 6, 2]])
    assert loss_class()(predicted, target).tolist() == pytest.approx(expected, abs=1e-6)
    assert loss_class.compares == "boxes"


DEGENERATE = {
    "a point on its target": [5.0, 5, 5, 5],
    "a point elsewhere": [50.0, 50, 50, 50],
    "no width": [5.0, 0, 5, 10],
    "no height": [0.0, 5, 10, 5],
    "equal": [0.0, 0, 10, 10],
    "touching": [10.0, 0, 20, 10],
    "tiny": [5.0, 5, 5 + 1e-6, 5 + 1e-6],
    "huge": [-1e6, -1e6, 1e6, 1e6],
    "far": [1e6, 1e6, 1e6 + 1, 1e6 + 1],
}


@pytest.mark.parametrize("loss_class", LOSSES)
@pytest.mark.parametrize("box", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("target", [[0.0, 0, 10, 10], [5.0, 5, 5, 5], [0.0, 0, 0, 10]])
def test_degenerate_boxes_have_finite_losses_and_gradients(loss_class, box, target):
    predicted = torch.tensor([box], requires_grad=True)
    loss = loss_class()(predicted, torch.tensor([target]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("loss_class", LOSSES)
def test_no_boxes_have_no_losses(loss_class):
    assert loss_class()(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
