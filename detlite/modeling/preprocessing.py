"""From images of several sizes to the network's input."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..ranges import PositiveFloat, PositiveInt
from ..structures import ImageList
from .interfaces import Preprocessor
from .registries import PREPROCESSOR_REGISTRY


@PREPROCESSOR_REGISTRY.register
class ImageNormalizer(Preprocessor):
    """Subtract a mean, divide by a standard deviation, pad the batch.

    Args:
        mean: Of the channels in RGB order, on the scale 0 to 255.
        std: Likewise. Caffe's ImageNet backbones want 1, their weights contain it.
        channel_order: What the backbone was trained on; images come as RGB.
        size_divisor: Height and width are padded to a multiple of it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        mean: tuple[float, float, float] = (123.675, 116.28, 103.53),
        std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (58.395, 57.12, 57.375),
        channel_order: Literal["RGB", "BGR"] = "RGB",
        size_divisor: PositiveInt = 32,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.channel_order = channel_order
        self.size_divisor = size_divisor

    def forward(self, images: Sequence[Tensor]) -> ImageList:
        """Normalize images (3, h, w) and pad them with zeros, the mean colour."""
        normalized = []
        for image in images:
            if image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(f"images must have shape (3, h, w), got {tuple(image.shape)}")
            image = (image.to(self.mean.device, non_blocking=True) - self.mean) / self.std
            normalized.append(image.flip(0) if self.channel_order == "BGR" else image)
        return ImageList.from_tensors(normalized, size_divisor=self.size_divisor)
