import pytest
import torch
import torch.nn.functional as F

from detlite.modeling.losses import L1Loss, SmoothL1Loss


def draw_deltas(dtype=torch.float32, num_boxes=200):
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(num_boxes, 4, generator=generator, dtype=dtype).requires_grad_()
    return predicted, torch.randn(num_boxes, 4, generator=generator, dtype=dtype)


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_value_and_gradient_agree_with_torch(beta, weight):
    predicted, target = draw_deltas()
    loss = SmoothL1Loss(beta=beta, weight=weight)(predicted, target)
    expected = weight * F.smooth_l1_loss(predicted, target, reduction="none", beta=beta).sum(dim=1)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(value.sum(), predicted)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_l1_is_smooth_l1_with_beta_0(weight):
    predicted, target = draw_deltas()
    loss = L1Loss(weight=weight)(predicted, target)
    torch.testing.assert_close(
        loss, weight * F.l1_loss(predicted, target, reduction="none").sum(dim=1)
    )
    assert torch.equal(loss, SmoothL1Loss(beta=0.0, weight=weight)(predicted, target))


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_gradient_is_that_of_the_value(beta):
    predicted, target = draw_deltas(torch.float64, 5)
    assert torch.autograd.gradcheck(lambda x: SmoothL1Loss(beta=beta)(x, target), predicted)


def test_the_default_is_the_plain_absolute_difference():
    loss = SmoothL1Loss()(torch.tensor([[1.0, -2, 0, 0.5]]), torch.tensor([[0.0, 0, 0, 1]]))
    assert loss.tolist() == [3.5]
    assert SmoothL1Loss.compares == L1Loss.compares == "deltas"


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_an_exact_prediction_has_no_loss_and_no_gradient(beta):
    predicted = torch.ones(3, 4, requires_grad=True)
    loss = SmoothL1Loss(beta=beta)(predicted, torch.ones(3, 4))
    loss.sum().backward()
    assert not loss.any()
    assert not predicted.grad.any()
