"""Which anchors learn which object."""

from collections.abc import Sequence

from torch import Tensor

from ..ops import match_anchors
from ..ranges import Fraction
from .interfaces import Matcher
from .registries import MATCHER_REGISTRY


@MATCHER_REGISTRY.register
class MaxIoUMatcher(Matcher):
    """Match an anchor to the ground truth that it overlaps most (RetinaNet, section 4.1).

    Args:
        foreground_thresh: From this IoU on an anchor is foreground.
        background_thresh: Below this IoU it is background; between the two it is ignored.
        allow_low_quality: Also make foreground the best anchors of each ground truth (Faster R-CNN,
            section 3.1.2, rule i), so that no object is left without an anchor.
    """

    def __init__(
        self,
        *,
        foreground_thresh: Fraction = 0.5,
        background_thresh: Fraction = 0.4,
        allow_low_quality: bool = True,
    ) -> None:
        if background_thresh > foreground_thresh:
            raise ValueError(
                f"background_thresh must not exceed foreground_thresh, got {background_thresh} "
                f"and {foreground_thresh}"
            )
        self.foreground_thresh = foreground_thresh
        self.background_thresh = background_thresh
        self.allow_low_quality = allow_low_quality

    def __call__(self, gt_boxes: Sequence[Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (N, R) and labels (N, R) of anchors (R, 4), see ``detlite.ops.match_anchors``."""
        return match_anchors(
            gt_boxes,
            anchors,
            self.foreground_thresh,
            self.background_thresh,
            self.allow_low_quality,
        )
