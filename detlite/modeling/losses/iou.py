"""Losses on overlap: IoU and what was added so that boxes apart still attract each other."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from ...ranges import NonNegativeFloat
from ..interfaces import BoxLoss
from ..registries import LOSS_REGISTRY

# Keeps the quotients finite where boxes have no area; the peers' value.
EPS = 1e-7


class _OverlapLoss(BoxLoss):
    compares = "boxes"

    def __init__(self, *, weight: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Loss (P,) of boxes (P, 4)."""
        intersection, union = _overlap(predicted, target)
        iou = intersection / (union + EPS)
        return self.weight * (1 - iou + self.penalty(predicted, target, iou, union))

    @abstractmethod
    def penalty(self, predicted: Tensor, target: Tensor, iou: Tensor, union: Tensor) -> Tensor:
        """What is added to 1 - IoU, (P,)."""


@LOSS_REGISTRY.register
class IoULoss(_OverlapLoss):
    """1 - IoU.

    Args:
        weight: Factor of the loss.
    """

    def penalty(self, predicted: Tensor, target: Tensor, iou: Tensor, union: Tensor) -> Tensor:
        """Nothing."""
        return torch.zeros_like(iou)


@LOSS_REGISTRY.register
class GIoULoss(_OverlapLoss):
    """Generalised IoU (Rezatofighi et al. 2019, https://arxiv.org/abs/1902.09630).

    Args:
        weight: Factor of the loss.
    """

    def penalty(self, predicted: Tensor, target: Tensor, iou: Tensor, union: Tensor) -> Tensor:
        """The share of the common hull that neither box covers."""
        width, height = _hull(predicted, target)
        hull = width * height
        return (hull - union) / (hull + EPS)


@LOSS_REGISTRY.register
class DIoULoss(_OverlapLoss):
    """Distance IoU (Zheng et al. 2019, https://arxiv.org/abs/1911.08287, eq. 7).

    Args:
        weight: Factor of the loss.
    """

    def penalty(self, predicted: Tensor, target: Tensor, iou: Tensor, union: Tensor) -> Tensor:
        """Squared distance of the centres in squared diagonals of the hull."""
        width, height = _hull(predicted, target)
        centers = predicted[:, :2] + predicted[:, 2:] - target[:, :2] - target[:, 2:]
        distance = (centers**2).sum(dim=1) / 4
        return distance / (width**2 + height**2 + EPS)


@LOSS_REGISTRY.register
class CIoULoss(DIoULoss):
    """Complete IoU: distance IoU and the aspect ratio (Zheng et al. 2019, eq. 8 to 11).

    Args:
        weight: Factor of the loss.
    """

    def penalty(self, predicted: Tensor, target: Tensor, iou: Tensor, union: Tensor) -> Tensor:
        """Distance of the centres and of the aspect ratios."""
        angles = [torch.atan2(*_size(boxes)) for boxes in (target, predicted)]
        v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
        with torch.no_grad():
            trade_off = v / (1 - iou + v + EPS)
        return super().penalty(predicted, target, iou, union) + trade_off * v


def paired_iou(predicted: Tensor, target: Tensor) -> Tensor:
    """IoU of predicted boxes (..., 4) with their own targets (..., 4), (...) in [0, 1]."""
    intersection, union = _overlap(predicted, target)
    return (intersection / (union + EPS)).clamp(0, 1)


def _size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def _overlap(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    upper_left = torch.max(predicted[..., :2], target[..., :2])
    lower_right = torch.min(predicted[..., 2:], target[..., 2:])
    intersection = (lower_right - upper_left).clamp(min=0).prod(dim=-1)
    areas = [width * height for width, height in (_size(predicted), _size(target))]
    return intersection, areas[0] + areas[1] - intersection


def _hull(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    upper_left = torch.min(predicted[:, :2], target[:, :2])
    lower_right = torch.max(predicted[:, 2:], target[:, 2:])
    width, height = (lower_right - upper_left).unbind(dim=1)
    return width, height
