"""Geometry of boxes, (N, 4) XYXY in pixels."""

from typing import Any

import torch
from torch import Tensor

from . import reference
from ._library import register, register_gradient


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair; differentiable in every mode of torch.

    Args:
        boxes1: (N, 4).
        boxes2: (M, 4), the same type.

    Returns:
        (N, M) in [0, 1]; 0 where a box is empty, inverted or not finite.

    Raises:
        ValueError: A tensor is not (N, 4) of a floating type, or the types differ.
    """
    _check_pair(boxes1, boxes2)
    return _box_iou(boxes1, boxes2)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of every pair (Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630).

    Differentiable, as ``box_iou`` is.

    Args:
        boxes1: (N, 4).
        boxes2: (M, 4), the same type.

    Returns:
        (N, M) in (-1, 1]; -1 where a box is empty, inverted or not finite.

    Raises:
        ValueError: A tensor is not (N, 4) of a floating type, or the types differ.
    """
    _check_pair(boxes1, boxes2)
    return _generalized_box_iou(boxes1, boxes2)


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Move the corners that lie outside the image onto its border.

    Args:
        boxes: (..., D, 4).
        image_sizes: (..., 2), height and width in the same pixels.

    Returns:
        (..., D, 4); a box outside the image becomes one without an area.
    """
    limits = image_sizes.to(boxes)[..., [1, 0, 1, 0]].unsqueeze(-2)
    return torch.minimum(boxes.clamp(min=0), limits)


def check_boxes(boxes: Tensor, name: str = "boxes") -> None:
    """Raise a ValueError unless ``boxes`` is a floating tensor (N, 4)."""
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must have shape (N, 4), got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise ValueError(f"{name} must be of a floating type, got {boxes.dtype}")


def _check_pair(boxes1: Tensor, boxes2: Tensor) -> None:
    check_boxes(boxes1, "boxes1")
    check_boxes(boxes2, "boxes2")
    if boxes1.dtype != boxes2.dtype or boxes1.device != boxes2.device:
        raise ValueError(
            f"boxes1 and boxes2 must agree in type and device, got {boxes1.dtype} on "
            f"{boxes1.device} and {boxes2.dtype} on {boxes2.device}"
        )


def _every_pair(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    return boxes1.new_empty(boxes1.shape[0], boxes2.shape[0])


def _save_boxes(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _iou_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    boxes1, boxes2 = ctx.saved_tensors
    return _pair_gradient(boxes1, boxes2, grad, generalized=False)


def _giou_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    boxes1, boxes2 = ctx.saved_tensors
    return _pair_gradient(boxes1, boxes2, grad, generalized=True)


def _pair_gradient(
    boxes1: Tensor, boxes2: Tensor, grad: Tensor, *, generalized: bool
) -> tuple[Tensor, Tensor]:
    """Gradients (N, 4) and (M, 4) of the overlaps of every pair, given that of the (N, M) matrix.

    With I the intersection, U the union and H the hull: d(I / U) = dI / U - I / U^2 dU, and U is
    the areas less I; GIoU adds d(U / H). Where corners coincide, each gets half.
    """
    wide1, wide2 = reference.widened(boxes1), reference.widened(boxes2)
    both = reference.valid_boxes(wide1)[:, None] & reference.valid_boxes(wide2)[None, :]
    a, b = wide1[:, None, :], wide2[None, :, :]
    hull_size = torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])
    # Bad boxes, and boxes too far apart for the type, move nothing.
    both = both & hull_size.prod(dim=-1).isfinite()
    hull_size = torch.where(both[..., None], hull_size, 1)
    hull = hull_size.prod(dim=-1)
    grad = torch.where(both, reference.widened(grad), 0)
    size = (torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = size.prod(dim=-1)
    areas = reference.box_area(a) + reference.box_area(b)
    union = torch.where(both, areas - intersection, 1)

    to_union = -grad * intersection / union**2
    to_hull = torch.zeros_like(grad)
    if generalized:
        to_union = to_union + grad / hull
        to_hull = -grad * union / hull**2
    to_intersection = grad / union - to_union
    # The side of a product moves it by the other side.
    by_overlap = torch.where(size > 0, to_intersection[..., None] * size.flip(-1), 0)
    by_hull = to_hull[..., None] * hull_size.flip(-1)
    results = []
    for own, other, dim in ((a, b, 1), (b, a, 0)):
        sides = own[..., 2:] - own[..., :2]
        by_area = to_union[..., None] * sides.flip(-1)
        inner_low, inner_high = (
            _share(own[..., :2], other[..., :2]),
            _share(other[..., 2:], own[..., 2:]),
        )
        low = -by_area - by_overlap * inner_low - by_hull * (1 - inner_low)
        high = by_area + by_overlap * inner_high + by_hull * (1 - inner_high)
        results.append(torch.where(both[..., None], torch.cat((low, high), -1), 0).sum(dim))
    return results[0].to(boxes1.dtype), results[1].to(boxes2.dtype)


def _share(larger: Tensor, smaller: Tensor) -> Tensor:
    """1 where ``larger`` is the larger one, 1/2 where they are equal, else 0."""
    return torch.where(larger == smaller, 0.5, (larger > smaller).to(larger.dtype))


_box_iou = register(reference.box_iou, _every_pair)
_generalized_box_iou = register(reference.generalized_box_iou, _every_pair)
register_gradient(reference.box_iou, _iou_backward, _save_boxes)
register_gradient(reference.generalized_box_iou, _giou_backward, _save_boxes)
