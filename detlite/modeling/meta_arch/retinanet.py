"""RetinaNet (Lin et al. 2017, https://arxiv.org/abs/1708.02002)."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ..box_coder import DeltaBoxCoder
from ..loss_normalizer import MovingAverageNormalizer
from ..losses import SigmoidFocalLoss, SmoothL1Loss
from ..matcher import MaxIoUMatcher
from ..postprocessing import NMSPostprocessor
from ..registries import META_ARCH_REGISTRY
from .dense_detector import DenseDetector


@META_ARCH_REGISTRY.register
class RetinaNet(DenseDetector):
    """Anchors of several sizes and shapes on each cell, and the focal loss.

    The parts that a config does not name are the paper's; the losses are divided by a moving
    average of the foreground anchors, as in detectron2. The keys are those of ``DenseDetector``.
    """

    default_parts: ClassVar[Mapping[str, Callable[[], Any]]] = {
        "matcher": MaxIoUMatcher,
        "box_coder": DeltaBoxCoder,
        "cls_loss": SigmoidFocalLoss,
        "box_loss": SmoothL1Loss,
        "loss_normalizer": MovingAverageNormalizer,
        "postprocessor": NMSPostprocessor,
    }
