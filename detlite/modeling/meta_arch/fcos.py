"""FCOS (Tian et al. 2019, https://arxiv.org/abs/1904.01355)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from ..distance_coder import DistanceBoxCoder
from ..fcos_matcher import FCOSMatcher
from ..loss_normalizer import BatchNormalizer
from ..losses import GIoULoss, SigmoidFocalLoss
from ..postprocessing import NMSPostprocessor
from ..registries import META_ARCH_REGISTRY
from .dense_detector import DenseDetector


@META_ARCH_REGISTRY.register
class FCOS(DenseDetector):
    """A detector without anchors: each cell is a point that predicts the distances to four sides.

    As an anchor generator it takes one square per cell, ``{name: GridAnchorGenerator, base_size: 1,
    scales_per_octave: 1, aspect_ratios: [1.0]}``, whose centre is the point and whose side is the
    unit of the distances. The parts that a config does not name are torchvision's: its losses are
    all divided by the foreground points of the batch, and a box's score is the geometric mean of
    its class's score and its centerness. The keys are those of ``DenseDetector``.

    The paper reports 38.6 AP with ResNet-50 and FPN, 1x (table 3, with the later improvements);
    torchvision's weights of 26 epochs have 39.2.
    """

    default_parts: ClassVar[Mapping[str, Callable[[], Any]]] = {
        "matcher": FCOSMatcher,
        "box_coder": DistanceBoxCoder,
        "cls_loss": SigmoidFocalLoss,
        "box_loss": GIoULoss,
        "loss_normalizer": BatchNormalizer,
        "postprocessor": partial(NMSPostprocessor, score_thresh=0.2, nms_thresh=0.6),
    }
