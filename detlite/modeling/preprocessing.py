"""From images of several sizes to the network's input."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import UserError
from ..ranges import Pixels, PositiveFloat
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
        size_divisor: Pixels = 32,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.channel_order = channel_order
        self.size_divisor = size_divisor

    def forward(self, images: Sequence[Tensor], canvas: tuple[int, int] | None = None) -> ImageList:
        """Normalize images (3, h, w) and pad them with zeros, the mean colour."""
        normalized = []
        for image in images:
            if image.ndim != 3 or image.shape[0] != 3:
                raise ValueError(f"images must have shape (3, h, w), got {tuple(image.shape)}")
            image = (image.to(self.mean.device, non_blocking=True) - self.mean) / self.std
            normalized.append(image.flip(0) if self.channel_order == "BGR" else image)
        return ImageList.from_tensors(normalized, size_divisor=self.size_divisor, canvas=canvas)


def pad_to_canvas(
    preprocessor: Preprocessor, images: Sequence[Tensor], canvas: tuple[int, int]
) -> ImageList:
    """Preprocess a part of a batch as if the whole batch had come.

    Args:
        preprocessor: Any; one that takes no canvas serves where the canvas is that of the images.
        images: (3, h, w) each.
        canvas: (height, width) of the whole batch.

    Raises:
        UserError: The preprocessor cannot, or does not, make the size of the canvas.
    """
    name = type(preprocessor).__name__
    if "canvas" in inspect.signature(preprocessor.forward).parameters:
        batch = preprocessor(images, canvas=canvas)
    else:
        own = tuple(max(image.shape[axis] for image in images) for axis in (-2, -1))
        if own != tuple(canvas):
            raise UserError(
                f"preprocessor {name} takes no `canvas`, and the images of this process, up to "
                f"(height, width) {own}, must be padded to {tuple(canvas)}, the size of the whole "
                "batch; give its forward a second argument `canvas`, as the contract "
                "(detlite.modeling.interfaces.Preprocessor) has it, or train in one process "
                "with train.accumulate=1"
            )
        batch = preprocessor(images)
    size, expected = tuple(batch.tensor.shape[-2:]), tuple(preprocessor.padded_size(canvas))
    if size != expected:
        raise UserError(
            f"preprocessor {name} padded a batch to (height, width) {size}, and its padded_size "
            f"says {expected} for the canvas {tuple(canvas)}; the two must agree, see the "
            "contract (detlite.modeling.interfaces.Preprocessor)"
        )
    return batch


def run_by_size(
    preprocessor: Preprocessor,
    batch: Sequence[Mapping[str, Any]],
    run: Callable[[list[Mapping[str, Any]]], Sequence[Any]],
) -> list[Any]:
    """Run a batch so that no image is padded more than it would be alone.

    Args:
        preprocessor: Whose ``padded_size`` says how far an image is padded.
        batch: One dict an image, with "image" (3, h, w).
        run: Takes images that are padded to one size, and gives a result for each.

    Returns:
        The results in the order of the batch.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for i, sample in enumerate(batch):
        height, width = sample["image"].shape[-2:]
        groups.setdefault(preprocessor.padded_size((height, width)), []).append(i)
    results: dict[int, Any] = {}
    for group in groups.values():
        results.update(zip(group, run([batch[i] for i in group]), strict=True))
    return [results[i] for i in range(len(batch))]
