"""FCOS's assignment of points to objects (Tian et al. 2019, https://arxiv.org/abs/1904.01355)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..ranges import PositiveFloat
from .interfaces import Matcher
from .registries import MATCHER_REGISTRY


@MATCHER_REGISTRY.register
class FCOSMatcher(Matcher):
    """A point learns the smallest object around it that is of its level's size.

    A point is the centre of its anchor, whose width is the unit of all lengths here, the stride for
    anchors of ``base_size: 1``. With the default the first level takes objects whose farthest side
    is up to 8 units from the point, the next ones 4 to 8 of theirs, the last one all above: 64,
    128, 256, 512 px (section 3.2 of the paper).

    Args:
        center_radius: Only points this near to the object's centre, in both directions, learn it
            (1.5 in the authors' code and torchvision); null: all points within it, as in the paper.
        smallest: Distance of the farthest side from which on a level takes objects.
        greatest: Up to which it does.
    """

    def __init__(
        self,
        *,
        center_radius: PositiveFloat | None = 1.5,
        smallest: PositiveFloat = 4.0,
        greatest: PositiveFloat = 8.0,
    ) -> None:
        if smallest >= greatest:
            raise ValueError(f"smallest must be below greatest, got {smallest} and {greatest}")
        self.center_radius = center_radius
        self.smallest = smallest
        self.greatest = greatest

    def __call__(
        self, gt_boxes: Sequence[Tensor], anchors: Tensor, level_sizes: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor]:
        """Indices (N, R) and labels (N, R); no anchor is ignored."""
        unit = anchors[:, 2] - anchors[:, 0]
        lower, upper = unit * self.smallest, unit * self.greatest
        sizes = list(level_sizes) or [len(anchors)]
        lower[: sizes[0]] = 0
        upper[len(anchors) - sizes[-1] :] = math.inf
        results = [self._match(boxes, anchors, unit, lower, upper) for boxes in gt_boxes]
        indices, labels = zip(*results, strict=True)
        return torch.stack(indices), torch.stack(labels)

    def _match(
        self, boxes: Tensor, anchors: Tensor, unit: Tensor, lower: Tensor, upper: Tensor
    ) -> tuple[Tensor, Tensor]:
        if len(boxes) == 0:
            indices = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
            return indices, indices.to(torch.int8)
        points = (anchors[:, :2] + anchors[:, 2:]) / 2
        # (G, R, 4): from each point to the left, upper, right and lower side.
        sides = torch.cat([points - boxes[:, None, :2], boxes[:, None, 2:] - points], dim=-1)
        farthest = sides.amax(dim=-1)
        suits = (sides.amin(dim=-1) > 0) & (farthest > lower) & (farthest < upper)
        if self.center_radius is not None:
            centers = (boxes[:, :2] + boxes[:, 2:]) / 2
            off = (centers[:, None] - points).abs().amax(dim=-1)
            suits &= off < self.center_radius * unit
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        smallest, indices = torch.where(suits, areas[:, None], math.inf).min(dim=0)
        is_foreground = smallest < math.inf
        return indices.masked_fill(~is_foreground, 0), is_foreground.to(torch.int8)
