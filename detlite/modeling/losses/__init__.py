"""Losses, one idea a file; importing this package registers them."""

from .focal import SigmoidFocalLoss
from .iou import CIoULoss, DIoULoss, GIoULoss, IoULoss
from .smooth_l1 import L1Loss, SmoothL1Loss

__all__ = [
    "CIoULoss",
    "DIoULoss",
    "GIoULoss",
    "IoULoss",
    "L1Loss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
]
