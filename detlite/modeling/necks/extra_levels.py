"""Levels beyond the backbone's."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from ...structures import ShapeSpec
from ..interfaces import ExtraLevels
from ..layers import InitName, init_xavier
from ..registries import EXTRA_LEVELS_REGISTRY


@EXTRA_LEVELS_REGISTRY.register
class P6P7(ExtraLevels):
    """Two strided 3x3 convolutions (RetinaNet, section 4, footnote 2).

    Args:
        source: The map that P6 is made from: the backbone's last, "res5", or the pyramid's, "p5".
        relu_before_p7: Put a ReLU between the two; mmdetection has none.
        init: The first weights: "caffe2" (detectron2, torchvision) or "xavier", PyTorch's
            ``xavier_uniform_`` (mmdetection, ODTK).
    """

    num_levels = 2

    def __init__(
        self,
        *,
        input_shape: Mapping[str, ShapeSpec],
        out_channels: int,
        source: str = "res5",
        relu_before_p7: bool = True,
        init: InitName = "caffe2",
    ) -> None:
        super().__init__()
        if source not in input_shape:
            raise ValueError(f"source must be one of {', '.join(input_shape)}, got '{source}'")
        self.source = source
        self.relu_before_p7 = relu_before_p7
        in_channels = input_shape[source].channels
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        init_xavier(self.p6, init)
        init_xavier(self.p7, init)

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        """Make P6 and P7 of the source map."""
        p6 = self.p6(features[self.source])
        return [p6, self.p7(F.relu(p6) if self.relu_before_p7 else p6)]
