"""Losses, one idea a file; importing this package registers them."""

from .classification import BinaryCrossEntropyLoss, CrossEntropyLoss
from .distribution import DistributionFocalLoss
from .focal import SigmoidFocalLoss
from .iou import CIoULoss, DIoULoss, GIoULoss, IoULoss, paired_iou
from .quality import QualityFocalLoss, VarifocalLoss
from .smooth_l1 import L1Loss, SmoothL1Loss

__all__ = [
    "BinaryCrossEntropyLoss",
    "CIoULoss",
    "CrossEntropyLoss",
    "DIoULoss",
    "DistributionFocalLoss",
    "GIoULoss",
    "IoULoss",
    "L1Loss",
    "QualityFocalLoss",
    "SigmoidFocalLoss",
    "SmoothL1Loss",
    "VarifocalLoss",
    "paired_iou",
]
