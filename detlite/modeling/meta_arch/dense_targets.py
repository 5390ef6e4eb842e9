"""What each anchor of a batch shall predict."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...structures import Instances
from ..matcher import values_of_matched


@dataclass(frozen=True, eq=False)
class DenseTargets:
    """The aims of N images' R anchors.

    Attributes:
        foreground: (N, R) bool.
        classes: (N, R) int64: 0 to K - 1, K background, -1 ignored.
        boxes: (N, R, 4); an anchor that is no foreground aims at itself, so that its loss is
            finite.
    """

    foreground: Tensor
    classes: Tensor
    boxes: Tensor

    @classmethod
    def of_matches(
        cls,
        matches: tuple[Tensor, Tensor],
        gt_boxes: Sequence[Tensor],
        instances: Sequence[Instances],
        anchors: Tensor,
        num_classes: int,
    ) -> "DenseTargets":
        """Turn what a matcher says into aims.

        Args:
            matches: Indices (N, R) and labels (N, R), see ``Matcher``.
            gt_boxes: (G, 4) of each image, on the anchors' device.
            instances: With gt_classes (G,) of each image.
            anchors: (R, 4).
            num_classes: K.
        """
        matched, labels = matches
        foreground = labels == 1
        # What the loader has put into pinned memory is copied without waiting for the device.
        gt_classes = [truth.gt_classes.to(anchors.device, non_blocking=True) for truth in instances]
        classes = torch.where(foreground, values_of_matched(gt_classes, matched), num_classes)
        classes = classes.masked_fill(labels == -1, -1)
        boxes = torch.where(foreground[..., None], values_of_matched(gt_boxes, matched), anchors)
        return cls(foreground, classes, boxes)

    def centerness(self, anchors: Tensor) -> Tensor:
        """How near anchors (R, 4) lie to the centre of their box, (N, R) from 0 to 1.

        FCOS (Tian et al. 2019, https://arxiv.org/abs/1904.01355), eq. 3.
        """
        centers = (anchors[:, :2] + anchors[:, 2:]) / 2
        before, after = centers - self.boxes[..., :2], self.boxes[..., 2:] - centers
        # A centre outside of its box, which FCOS itself never matches, is as far off as can be.
        near, far = torch.minimum(before, after).clamp(min=0), torch.maximum(before, after)
        return (near / far.clamp(min=torch.finfo(far.dtype).tiny)).prod(dim=-1).sqrt()

    def sum_foreground(self, losses: Tensor) -> Tensor:
        """Losses (N, R) to the sum (N,) of each image's foreground."""
        # A mask and no indexing: the number of positives stays on the device.
        return torch.where(self.foreground, losses, 0).sum(dim=1)
