import math

import pytest
import torch
import torch.nn.functional as F
import torchvision

from detlite.ops import reference, sigmoid_focal_loss

NATIVE = torch.ops.detlite.sigmoid_focal_loss.default.has_kernel_for_dispatch_key("CPU")
GAMMAS = [0.0, 0.3, 0.5, 1.0, 1.5, 2.0, 2.7, 3.0, 12.0]


def draw(rows, num_classes, dtype=torch.float32):
    """Logits and classes with background (K) and ignored rows (-1) among them."""
    generator = torch.Generator().manual_seed(rows + num_classes)
    logits = 4 * torch.randn(rows, num_classes, generator=generator, dtype=dtype)
    return logits, torch.randint(-1, num_classes + 1, (rows,), generator=generator)


@pytest.mark.parametrize("rows", [0, 1, 1000])
@pytest.mark.parametrize("num_classes", [1, 2, 80])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 0.0), (0.9, 1.5), (1.0, 1.0)])
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float32, 1e-6, 1e-6), (torch.float64, 1e-12, 1e-14)]
)
def test_value_and_gradient_agree_with_torchvision(
    rows, num_classes, alpha, gamma, dtype, rtol, atol
):
    logits, classes = draw(rows, num_classes, dtype)
    logits.requires_grad_()
    targets = F.one_hot(classes.clamp(min=0), num_classes + 1)[:, :-1].to(logits)
    losses = torchvision.ops.sigmoid_focal_loss(logits, targets, alpha, gamma)
    expected = losses[classes >= 0].sum()
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    loss = sigmoid_focal_loss(logits, classes, alpha, gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, expected, rtol=rtol, atol=atol)
    torch.testing.assert_close(gradient, expected_gradient, rtol=rtol, atol=atol)
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


def value_and_gradient(logits, classes, alpha, gamma):
    logits = logits.detach().requires_grad_()
    loss = sigmoid_focal_loss(logits, classes, alpha, gamma)
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


def exact(logits, classes, alpha, gamma):
    """Value and gradient of plain torch in float64."""
    logits = logits.double()
    loss = reference.sigmoid_focal_loss(logits, classes, alpha, gamma)
    grad = torch.ones_like(loss)
    return loss, reference.sigmoid_focal_loss_backward(grad, logits, classes, alpha, gamma)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize(("rows", "num_classes"), [(2000, 1), (1000, 3), (99, 81), (7, 1203)])
@pytest.mark.parametrize(
    ("dtype", "of_sum", "of_entry"), [(torch.float32, 2e-7, 1e-6), (torch.float64, 1e-14, 1e-13)]
)
def test_value_and_gradient_are_exact(rows, num_classes, gamma, dtype, of_sum, of_entry):
    logits, classes = draw(rows, num_classes, dtype)
    classes[::7] = num_classes + 5  # beyond K is background too
    loss, gradient = value_and_gradient(logits, classes, 0.3, gamma)
    expected, expected_gradient = exact(logits, classes, 0.3, gamma)
    assert loss.dtype == gradient.dtype == dtype
    torch.testing.assert_close(loss.double(), expected, rtol=of_sum, atol=0)
    rtol = of_entry * max(gamma, 1)  # a power of p has as many times the error of p
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=rtol, atol=1e-30)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_closed_form_of_the_gradient_is_that_of_autograd(gamma):
    logits, classes = draw(30, 5, torch.float64)
    logits.requires_grad_()
    loss = reference.sigmoid_focal_loss(logits, classes, 0.25, gamma)
    (expected,) = torch.autograd.grad(loss, logits)
    gradient = reference.sigmoid_focal_loss_backward(
        torch.tensor(1.0), logits.detach(), classes, 0.25, gamma
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_every_size_of_a_logit_is_exact(gamma, dtype):
    # Dense in -110 to 110, where exp() passes through all of float32 and further.
    logits = torch.linspace(-110, 110, 44001, dtype=dtype)[:, None]
    for own in (0, 1):
        classes = torch.full((len(logits),), own)
        _, gradient = value_and_gradient(logits, classes, 0.25, gamma)
        _, expected = exact(logits, classes, 0.25, gamma)
        rtol = 1e-5 if dtype == torch.float32 else 2e-13
        torch.testing.assert_close(gradient.double(), expected, rtol=rtol, atol=1e-36)


def test_ignored_rows_may_hold_anything():
    logits, classes = draw(50, 3)
    ignored = classes == -1
    expected = value_and_gradient(logits, classes, 0.25, 2.0)
    logits[ignored] = torch.tensor([math.nan, math.inf, -1e38])
    classes[ignored] = torch.tensor([-1, -5, -(2**40)]).repeat(50)[: ignored.sum()]
    for found, before in zip(value_and_gradient(logits, classes, 0.25, 2.0), expected, strict=True):
        assert torch.equal(found, before)
    assert not reference.sigmoid_focal_loss(logits, classes, 0.25, 2.0).isnan()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 2.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_nan_is_seen(gamma, dtype):
    logits, classes = draw(50, 3, dtype)
    classes[20] = 1
    logits[20, 2] = math.nan
    loss, gradient = value_and_gradient(logits, classes, 0.25, gamma)
    assert loss.isnan()
    assert gradient.isnan().nonzero().tolist() == [[20, 2]]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 2.7, 12.0])
def test_the_largest_logits_have_finite_gradients(gamma):
    logits = torch.tensor([[3e38, -3e38], [-3e38, 3e38], [1e30, -1e30]])
    _, gradient = value_and_gradient(logits, torch.tensor([0, 0, 2]), 0.25, gamma)
    expected = torch.tensor([[0.0, 0.0], [-0.25, 0.75], [0.75, 0.0]])
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_of_16_bits_are_computed_in_float32(dtype):
    logits, classes = draw(200, 81)
    logits = logits.to(dtype)
    loss, gradient = value_and_gradient(logits, classes, 0.25, 2.0)
    expected, expected_gradient = value_and_gradient(logits.float(), classes, 0.25, 2.0)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert torch.equal(gradient, expected_gradient.to(dtype))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8])
def test_classes_of_any_integer_type(dtype):
    logits, classes = draw(200, 5)
    expected = value_and_gradient(logits, classes, 0.25, 2.0)
    for found, other in zip(
        value_and_gradient(logits, classes.to(dtype), 0.25, 2.0), expected, strict=True
    ):
        assert torch.equal(found, other)


def test_strided_logits_and_classes():
    logits, classes = draw(200, 81)
    strided = value_and_gradient(logits.T.contiguous().T[::2], classes[::2], 0.25, 2.0)
    expected = value_and_gradient(logits[::2].clone(), classes[::2].clone(), 0.25, 2.0)
    for found, other in zip(strided, expected, strict=True):
        assert torch.equal(found, other)


def test_no_classes_and_no_rows_are_no_loss():
    for shape in ((0, 5), (5, 0), (0, 0)):
        loss, gradient = value_and_gradient(torch.zeros(shape), torch.zeros(shape[0]).int(), 0.5, 2)
        assert loss.item() == 0
        assert gradient.shape == shape


def test_the_gradient_is_scaled_by_that_of_the_loss():
    logits, classes = draw(50, 3)
    logits.requires_grad_()
    loss = sigmoid_focal_loss(logits, classes, 0.25, 2.0)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss, logits, torch.tensor(1024.0))
    assert torch.equal(scaled, 1024 * gradient)


@pytest.mark.skipif(not NATIVE, reason="plain torch rounds the last entries of a thread otherwise")
def test_the_number_of_threads_changes_no_bit():
    logits, classes = draw(5000, 37)
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results.append(value_and_gradient(logits, classes, 0.25, 2.0))
    torch.set_num_threads(threads)
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch looks at one itself
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 20])
def test_the_focal_ops_keep_torchs_rules(rows, dtype):
    logits, classes = draw(rows, 5)
    logits = logits.to(dtype)
    ops = torch.ops.detlite
    with_gradient = logits.clone().requires_grad_()
    torch.library.opcheck(ops.sigmoid_focal_loss.default, (with_gradient, classes, 0.25, 2.0))
    grad = torch.ones((), dtype=torch.promote_types(dtype, torch.float32))
    arguments = (grad, logits, classes, 0.25, 2.0)
    torch.library.opcheck(ops.sigmoid_focal_loss_backward.default, arguments)


@pytest.mark.slow
def test_the_focal_loss_compiles_into_one_graph():
    logits, classes = draw(300, 81)
    compiled = torch.compile(sigmoid_focal_loss, fullgraph=True)
    for values in (logits, logits[:100]):
        values = values.clone().requires_grad_()
        rows = classes[: len(values)]
        loss = compiled(values, rows, 0.25, 2.0)
        expected, expected_gradient = value_and_gradient(values, rows, 0.25, 2.0)
        assert torch.equal(loss, expected)
        assert torch.equal(torch.autograd.grad(loss, values)[0], expected_gradient)


@pytest.mark.parametrize(
    ("logits", "classes", "message"),
    [
        (torch.zeros(3), torch.zeros(3).long(), r"\(R, K\) and \(R,\), got \(3,\) and \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(4).long(), r"got \(3, 2\) and \(4,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2).long(), r"got \(3, 2\) and \(3, 2\)"),
        (torch.zeros(3, 2), torch.zeros(3), "classes must be integers, got torch.float32"),
        (torch.zeros(3, 2), torch.zeros(3).long().to("meta"), "on cpu as logits, got meta"),
        (torch.zeros(3, 2), torch.zeros(3).bool(), "classes must be integers, got torch.bool"),
        (torch.zeros(3, 2).int(), torch.zeros(3).int(), "logits must be of a floating type, got"),
    ],
)
def test_the_focal_loss_says_what_is_wrong(logits, classes, message):
    with pytest.raises(ValueError, match=message):
        sigmoid_focal_loss(logits, classes, 0.25, 2.0)


def test_a_negative_gamma_is_refused():
    with pytest.raises(ValueError, match=r"gamma must be at least 0, got -0\.5"):
        sigmoid_focal_loss(torch.zeros(3, 2), torch.zeros(3).long(), 0.25, -0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gamma", [1e30, 1e39, 1e300, math.inf])
def test_an_infinite_gamma_counts_as_the_largest_number(gamma, dtype):
    logits = torch.tensor([[0.0, 1, -1, 40, -40, 1e4, -1e4, 3e38, -3e38]], dtype=dtype)
    for loss, gradient in (
        value_and_gradient(logits, torch.tensor([99]), 0.25, gamma),
        (
            reference.sigmoid_focal_loss(logits[:, :7], torch.tensor([99]), 0.25, gamma),
            reference.sigmoid_focal_loss_backward(
                torch.tensor(1.0), logits, torch.tensor([99]), 0.25, gamma
            ),
        ),
    ):
        assert loss.isfinite()
        # Only what is wrong beyond any doubt stays.
        assert gradient.tolist() == [[0, 0, 0, 0, 0, 0.75, 0, 0.75, 0]]


def closed_form(classes):
    return lambda x: reference.sigmoid_focal_loss_backward(torch.tensor(1.0), x, classes, 0.25, 2.0)


# Of torch itself, as it loads its formulas of forward mode.
@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
def test_the_focal_loss_has_its_derivatives_in_every_mode():
    logits, classes = draw(6, 3, torch.float64)
    logits[0] = torch.tensor([-400.0, 400.0, 0.0])
    tangent = torch.randn(6, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradient = closed_form(classes)(logits)

    def loss(x):
        return sigmoid_focal_loss(x, classes, 0.25, 2.0)

    value, along = torch.func.jvp(loss, (logits,), (tangent,))
    torch.testing.assert_close(value, loss(logits))
    torch.testing.assert_close(along, (gradient * tangent).sum())
    torch.testing.assert_close(torch.func.grad(loss)(logits), gradient)
    by_sample = torch.func.vmap(torch.func.grad(loss))(torch.stack((logits, logits)))
    torch.testing.assert_close(by_sample, torch.stack((gradient, gradient)))
    second = torch.func.jvp(closed_form(classes), (logits,), (tangent,))[1]
    torch.testing.assert_close(
        torch.func.jvp(torch.func.grad(loss), (logits,), (tangent,))[1], second
    )
    x = logits.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(x), x, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad((first * tangent).sum(), x)[0], second)
