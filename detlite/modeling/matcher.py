"""Which anchors learn which object."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..ops import box_iou, match_anchors
from ..ranges import Fraction
from .interfaces import Matcher
from .registries import MATCHER_REGISTRY

# The corners of an anchor that nothing shall match: no area, and far from every object.
NOWHERE = -1e6


@MATCHER_REGISTRY.register
class MaxIoUMatcher(Matcher):
    """Match an anchor to the ground truth that it overlaps most (RetinaNet, section 4.1).

    Args:
        foreground_thresh: From this IoU on an anchor is foreground.
        background_thresh: Below this IoU it is background; between the two it is ignored.
        allow_low_quality: Also make foreground the best anchors of each ground truth (Faster R-CNN,
            section 3.1.2, rule i), so that no object is left without an anchor.
        reassign_low_quality: Give these anchors to the ground truth whose best they are, the last
            one of several, even where they overlap another more (mmdetection). There, and so
            here, a ground truth that no anchor overlaps takes all anchors, since each ties for
            its best IoU of 0; keep empty boxes out of the data.
    """

    def __init__(
        self,
        *,
        foreground_thresh: Fraction = 0.5,
        background_thresh: Fraction = 0.4,
        allow_low_quality: bool = True,
        reassign_low_quality: bool = False,
    ) -> None:
        if background_thresh > foreground_thresh:
            raise ValueError(
                f"background_thresh must not exceed foreground_thresh, got {background_thresh} "
                f"and {foreground_thresh}"
            )
        if reassign_low_quality and not allow_low_quality:
            raise ValueError(
                "reassign_low_quality needs allow_low_quality, got true and false; without it no "
                "anchor is foreground for being a ground truth's best"
            )
        self.foreground_thresh = foreground_thresh
        self.background_thresh = background_thresh
        self.allow_low_quality = allow_low_quality
        self.reassign_low_quality = reassign_low_quality

    def __call__(
        self, gt_boxes: Sequence[Tensor], anchors: Tensor, level_sizes: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor]:
        """Indices (N, R) and labels (N, R) of anchors (R, 4), see ``detlite.ops.match_anchors``."""
        matched, labels = match_anchors(
            gt_boxes,
            anchors,
            self.foreground_thresh,
            self.background_thresh,
            self.allow_low_quality and not self.reassign_low_quality,
        )
        if self.reassign_low_quality:
            for image, boxes in enumerate(gt_boxes):
                _assign_best(boxes, anchors, matched[image], labels[image])
        return matched, labels


def _assign_best(gt_boxes: Tensor, anchors: Tensor, matched: Tensor, labels: Tensor) -> None:
    """Give each ground truth its best anchors, in place in indices (R,) and labels (R,)."""
    if len(anchors) == 0:
        return
    # One row of the IoU matrix at a time; nothing here waits for the device.
    for i in range(len(gt_boxes)):
        iou = box_iou(gt_boxes[i : i + 1], anchors)[0]
        is_best = iou == iou.max()
        matched.masked_fill_(is_best, i)
        labels.masked_fill_(is_best, 1)


def match_within_images(
    matcher: Matcher,
    gt_boxes: Sequence[Tensor],
    anchors: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    size_divisor: int,
) -> tuple[Tensor, Tensor]:
    """Match a batch as if the anchors on an image's padding did not exist.

    Args:
        matcher: Any.
        gt_boxes: (G, 4) of each image.
        anchors: (R_l, 4) of each level l.
        image_sizes: (height, width) of each image without padding.
        size_divisor: An image reaches as far as its own size, rounded up to a multiple of it.

    Returns:
        Indices (N, R) and labels (N, R), -1 for the anchors beyond.
    """
    results = []
    joined, level_sizes = torch.cat(list(anchors)), [len(level) for level in anchors]
    for boxes, size in zip(gt_boxes, image_sizes, strict=True):
        is_outside = _beyond(joined, size, size_divisor)
        matched, labels = matcher([boxes], joined.masked_fill(is_outside, NOWHERE), level_sizes)
        results.append((matched, labels.masked_fill(is_outside[:, 0], -1)))
    indices, labels = (torch.cat(parts) for parts in zip(*results, strict=True))
    return indices, labels


def values_of_matched(values: Sequence[Tensor], matched: Tensor) -> Tensor:
    """Values (G, ...) of each image at its indices, of (N, R): (N, R, ...)."""
    # One row more, which an image without ground truth is given.
    spare = values[0].new_zeros(1, *values[0].shape[1:])
    padded = pad_sequence([*values, spare], batch_first=True)
    return padded[torch.arange(len(values), device=matched.device)[:, None], matched]


def _beyond(anchors: Tensor, image_size: tuple[int, int], size_divisor: int) -> Tensor:
    """Which anchors (R, 4) have their centre beyond the padded image, (R, 1) bool."""
    height, width = (-(-side // size_divisor) * size_divisor for side in image_size)
    x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).unbind(dim=1)
    # Many centres lie on the border itself, which is beyond, but for the corners' rounding.
    return ((x > width - 0.01) | (y > height - 0.01))[:, None]
