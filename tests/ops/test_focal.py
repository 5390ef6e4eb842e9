import math

import pytest
import torch
import torch.nn.functional as F
import torchvision

from detlite.ops import sigmoid_focal_loss


def draw(rows, num_classes, dtype=torch.float32):
    """Logits and classes with background (K) and ignored rows (-1) among them."""
    generator = torch.Generator().manual_seed(rows + num_classes)
    logits = 4 * torch.randn(rows, num_classes, generator=generator, dtype=dtype)
    return logits, torch.randint(-1, num_classes + 1, (rows,), generator=generator)


@pytest.mark.parametrize("rows", [0, 1, 1000])
@pytest.mark.parametrize("num_classes", [1, 2, 80])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.9, 1.5), (1.0, 1.0)])
def test_value_and_gradient_agree_with_torchvision(rows, num_classes, alpha, gamma):
    logits, classes = draw(rows, num_classes)
    logits.requires_grad_()
    targets = F.one_hot(classes.clamp(min=0), num_classes + 1)[:, :-1].to(logits)
    losses = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha, gamma)
    expected = losses[classes >= 0].sum()
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    loss = sigmoid_focal_loss(logits, classes, alpha, gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
    assert not gradient[classes == -1].any()


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.75, 0.5), (0.25, 3.0)])
def test_gradient_is_that_of_the_value(alpha, gamma):
    logits, classes = draw(7, 3, torch.float64)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, classes, alpha, gamma), logits)


def test_hand_worked_values():
    # p = 1/2: an object weighs alpha, a background 1 - alpha, both fade by (1/2)^2.
    logits = torch.zeros(3, 2)
    loss = sigmoid_focal_loss(logits, torch.tensor([1, 2, -1]), 0.25, 2.0)
    assert loss.item() == pytest.approx((0.25 + 3 * 0.75) * 0.25 * math.log(2))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [20.0, 120.0, 1e4])
def test_extreme_logits_have_finite_values_and_gradients(gamma, scale):
    logits = torch.tensor([[scale, -scale], [scale, -scale]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([0, 1]), 0.25, gamma)
    loss.backward()
    # The second row is wrong in both places: 0.25 for its class, 0.75 for the other.
    assert loss.item() == pytest.approx(scale, rel=1e-4)
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("logits", "classes", "message"),
    [
        (torch.zeros(3), torch.zeros(3).long(), r"\(R, K\) and \(R,\), got \(3,\) and \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(4).long(), r"got \(3, 2\) and \(4,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2).long(), r"got \(3, 2\) and \(3, 2\)"),
        (torch.zeros(3, 2), torch.zeros(3), "classes must be integers, got torch.float32"),
    ],
)
def test_the_focal_loss_says_what_is_wrong(logits, classes, message):
    with pytest.raises(ValueError, match=message):
        sigmoid_focal_loss(logits, classes, 0.25, 2.0)
