"""Boxes as offsets from anchors."""

import math

import torch
from torch import Tensor

from ..ranges import PositiveFloat
from .interfaces import BoxCoder
from .registries import BOX_CODER_REGISTRY

# A box grows to 1000 px from an anchor of stride 16 at most, so that exp() cannot overflow.
SCALE_CLAMP = math.log(1000.0 / 16)


@BOX_CODER_REGISTRY.register
class DeltaBoxCoder(BoxCoder):
    """Centre offsets in anchor sizes and logarithms of size ratios (R-CNN, appendix C).

    Args:
        weights: Factors of dx, dy, dw, dh in the deltas.
        scale_clamp: Greatest dw and dh in decoding, before the exponential.
        clamp_shrinking: Also let dw and dh be no less than ``-scale_clamp`` (mmdetection).
    """

    def __init__(
        self,
        *,
        weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
        scale_clamp: PositiveFloat = SCALE_CLAMP,
        clamp_shrinking: bool = False,
    ) -> None:
        self.weights = tuple(weights)
        self.scale_clamp = scale_clamp
        self.smallest_scale = -scale_clamp if clamp_shrinking else None

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Express boxes (..., 4) relative to anchors (..., 4), as deltas (..., 4)."""
        wx, wy, ww, wh = self.weights
        anchor_x, anchor_y, anchor_w, anchor_h = _center_size(anchors)
        x, y, w, h = _center_size(boxes)
        dx = wx * (x - anchor_x) / anchor_w
        dy = wy * (y - anchor_y) / anchor_h
        dw = ww * torch.log(w / anchor_w)
        dh = wh * torch.log(h / anchor_h)
        return torch.stack((dx, dy, dw, dh), dim=-1)

    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Move and stretch anchors by predicted deltas.

        Args:
            deltas: (..., 4) dx, dy in anchor sizes; dw, dh as natural logarithms.
            anchors: (..., 4) XYXY in pixels.

        Returns:
            (..., 4) XYXY in the same pixels, not clipped to the image.
        """
        wx, wy, ww, wh = self.weights
        anchor_x, anchor_y, anchor_w, anchor_h = _center_size(anchors)
        dx, dy, dw, dh = deltas.unbind(dim=-1)
        x = dx / wx * anchor_w + anchor_x
        y = dy / wy * anchor_h + anchor_y
        scale_w = (dw / ww).clamp(min=self.smallest_scale, max=self.scale_clamp)
        scale_h = (dh / wh).clamp(min=self.smallest_scale, max=self.scale_clamp)
        half_w = 0.5 * torch.exp(scale_w) * anchor_w
        half_h = 0.5 * torch.exp(scale_h) * anchor_h
        return torch.stack((x - half_w, y - half_h, x + half_w, y + half_h), dim=-1)


def _center_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    w, h = x2 - x1, y2 - y1
    return x1 + 0.5 * w, y1 + 0.5 * h, w, h
