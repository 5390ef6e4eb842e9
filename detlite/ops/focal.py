"""The focal loss over class indices: no one-hot targets, nothing of the logits' size is stored."""

from typing import Any

import torch
from torch import Tensor

from . import reference
from ._library import register, register_gradient


def sigmoid_focal_loss(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum the focal loss of dense predictions (Lin et al. 2017, eq. 5).

    Finite logits have finite losses and gradients, a NaN makes the loss NaN, unless its row is
    ignored. The gradient is in the type of the logits. Higher derivatives, forward mode and the
    transforms of ``torch.func`` work too, in plain torch and with its use of memory.

    Args:
        logits: (R, K). Those of 16 bits are computed in float32.
        classes: (R,) integers: 0 to K - 1 the class, K and above background, below 0 ignored.
        alpha: Weight of the positives in [0, 1]; the negatives weigh ``1 - alpha``.
        gamma: Strength with which well-classified entries fade out; at least 0.
            Infinity counts as the largest finite number of the type of the computation.

    Returns:
        The sum, a scalar; float32, for float64 logits float64. The caller normalizes.

    Raises:
        ValueError: Shapes or types do not fit, or gamma is negative.
    """
    if logits.ndim != 2 or classes.shape != logits.shape[:1]:
        raise ValueError(
            "logits and classes must have shapes (R, K) and (R,), "
            f"got {tuple(logits.shape)} and {tuple(classes.shape)}"
        )
    if not logits.is_floating_point():
        raise ValueError(f"logits must be of a floating type, got {logits.dtype}")
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise ValueError(f"classes must be integers, got {classes.dtype}")
    if classes.device != logits.device:
        raise ValueError(f"classes must be on {logits.device} as logits, got {classes.device}")
    if not gamma >= 0:
        raise ValueError(f"gamma must be at least 0, got {gamma}")
    return _sigmoid_focal_loss(logits, classes, alpha, gamma)


def _scalar(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> Tensor:
    return logits.new_empty((), dtype=torch.promote_types(logits.dtype, torch.float32))


def _gradient(grad: Tensor, logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> Tensor:
    return logits.new_empty(logits.shape)


def _save_inputs(ctx: Any, inputs: tuple[Tensor, Tensor, float, float], output: Tensor) -> None:
    logits, classes, ctx.alpha, ctx.gamma = inputs
    ctx.save_for_backward(logits, classes)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    gradient = _sigmoid_focal_loss_backward(grad, *ctx.saved_tensors, ctx.alpha, ctx.gamma)
    return gradient, None, None, None


_sigmoid_focal_loss = register(reference.sigmoid_focal_loss, _scalar)
_sigmoid_focal_loss_backward = register(reference.sigmoid_focal_loss_backward, _gradient)
register_gradient(reference.sigmoid_focal_loss, _backward, _save_inputs)
register_gradient(reference.sigmoid_focal_loss_backward)
