"""The CUDA kernels of the focal loss, compiled for the CPU, against plain torch."""

import math

import pytest
import torch

from detlite.ops import reference

NAN, INF = math.nan, math.inf
HALVES = [torch.float16, torch.bfloat16]
FLOATS = [torch.float32, torch.float64, *HALVES]


@pytest.mark.parametrize("class_dtype", [torch.int64, torch.int32, torch.int8])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 2.7])
def test_focal_loss_and_gradient_agree_with_the_reference(emulated, gamma, dtype, class_dtype):
    generator = torch.Generator().manual_seed(3)
    waits = emulated.waits()
    for rows, num_classes in [(0, 3), (1, 1), (37, 1), (64, 2), (301, 3), (200, 80), (33, 81)]:
        logits = (torch.randn(rows, num_classes, generator=generator) * 6).to(dtype)
        classes = torch.randint(-1, num_classes + 2, (rows,), generator=generator).to(class_dtype)
        loss = emulated.ops.sigmoid_focal_loss(logits, classes, 0.25, gamma)
        expected = reference.sigmoid_focal_loss(logits, classes, 0.25, gamma)
        torch.testing.assert_close(loss, expected, rtol=2e-6, atol=1e-6)
        grad = torch.tensor(0.3, dtype=loss.dtype)
        slopes = emulated.ops.sigmoid_focal_loss_backward(grad, logits, classes, 0.25, gamma)
        expected = reference.sigmoid_focal_loss_backward(grad, logits, classes, 0.25, gamma)
        # One rounding to the type of 16 bits may fall the other way.
        tolerance = {"rtol": torch.finfo(dtype).eps, "atol": 1e-6} if dtype in HALVES else {}
        torch.testing.assert_close(slopes, expected, **tolerance)
    assert emulated.waits() == waits


# The grid has 4096 x 256 threads at most; these logits make them take a second step, one at a time
# and four at a time.
@pytest.mark.parametrize(("rows", "num_classes"), [(400_001, 3), (53_000, 80)])
def test_focal_loss_of_more_logits_than_threads(emulated, rows, num_classes):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, num_classes, generator=generator)
    classes = torch.randint(-1, num_classes + 1, (rows,), generator=generator)
    arguments = (logits, classes, 0.25, 2.0)
    loss = emulated.ops.sigmoid_focal_loss(*arguments)
    # Plain torch adds in float32, which for so many is the less exact of the two.
    expected = reference.sigmoid_focal_loss(logits.double(), *arguments[1:])
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    slopes = emulated.ops.sigmoid_focal_loss_backward(torch.ones(()), *arguments)
    expected = reference.sigmoid_focal_loss_backward(torch.ones(()), *arguments)
    torch.testing.assert_close(slopes, expected, rtol=1e-5, atol=1e-6)


def test_logits_need_not_be_aligned(emulated):
    logits = torch.randn(301, generator=torch.Generator().manual_seed(0))[1:].view(100, 3)
    classes = torch.arange(100) % 5 - 1
    loss = emulated.ops.sigmoid_focal_loss(logits, classes, 0.25, 2.0)
    torch.testing.assert_close(loss, reference.sigmoid_focal_loss(logits, classes, 0.25, 2.0))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("scale", [90.0, 1e4, 3e38])
def test_extreme_logits_have_finite_losses_and_gradients(emulated, gamma, scale):
    logits = torch.tensor([[scale, -scale], [scale, -scale], [NAN, INF]])
    classes = torch.tensor([0, 2, -1])
    loss = emulated.ops.sigmoid_focal_loss(logits, classes, 0.25, gamma)
    assert loss.item() == pytest.approx(0.75 * scale)
    slopes = emulated.ops.sigmoid_focal_loss_backward(torch.ones(()), logits, classes, 0.25, gamma)
    assert slopes.isfinite().all()
    assert not slopes[2].any()
    classes[2] = 0
    assert emulated.ops.sigmoid_focal_loss(logits, classes, 0.25, gamma).isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [12.0, 1e30, 1e300, INF])
def test_a_large_or_infinite_gamma_agrees_with_the_reference(emulated, gamma, dtype):
    logits = torch.tensor([[0.0, 1, -1, 40, -40, 1e4, -1e4, 3e30]], dtype=dtype)
    arguments = (logits, torch.tensor([99]), 0.25, gamma)
    loss = emulated.ops.sigmoid_focal_loss(*arguments)
    torch.testing.assert_close(loss, reference.sigmoid_focal_loss(*arguments))
    slopes = emulated.ops.sigmoid_focal_loss_backward(torch.ones(()), *arguments)
    expected = reference.sigmoid_focal_loss_backward(torch.ones(()), *arguments)
    torch.testing.assert_close(slopes, expected)
    assert slopes.isfinite().all()
