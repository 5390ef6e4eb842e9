"""The focal loss over class indices, without a one-hot tensor in the caller's hands."""

from torch import Tensor

from . import reference


def sigmoid_focal_loss(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum the focal loss of dense predictions (Lin et al. 2017, eq. 5).

    Args:
        logits: (R, K).
        classes: (R,) integers: 0 to K - 1 the class, K background, -1 ignored.
        alpha: Weight of the positives in [0, 1]; the negatives weigh ``1 - alpha``.
        gamma: Strength with which well-classified entries fade out; at least 0.

    Returns:
        The sum, a scalar. The caller normalizes.

    Raises:
        ValueError: Shapes or types do not fit.
    """
    if logits.ndim != 2 or classes.shape != logits.shape[:1]:
        raise ValueError(
            "logits and classes must have shapes (R, K) and (R,), "
            f"got {tuple(logits.shape)} and {tuple(classes.shape)}"
        )
    if classes.is_floating_point():
        raise ValueError(f"classes must be integers, got {classes.dtype}")
    return reference.sigmoid_focal_loss(logits, classes, alpha, gamma)
