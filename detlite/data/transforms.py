"""Transforms that torchvision lacks; all others are torchvision.transforms.v2 by name.

They draw from torch's random numbers, which the mapper seeds for each sample.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..errors import ConfigError
from ..ranges import Fraction, Pixels, PositiveFloat
from ..registry import Block, block_arguments
from .registries import TRANSFORM_REGISTRY
from .resize import ResizeMethod, Rounding, resize_image, shortest_edge_size

# What of torchvision's may follow a resize to float32 images on the scale 0 to 255. All that
# reads colours takes them for a scale of 0 to 1, and clips them at white.
_MOVES_PIXELS = (
    v2.RandomHorizontalFlip,
    v2.RandomVerticalFlip,
    v2.RandomCrop,
    v2.CenterCrop,
    v2.RandomIoUCrop,
    v2.RandomZoomOut,
    v2.Pad,
    v2.SanitizeBoundingBoxes,
    v2.ClampBoundingBoxes,
)


@TRANSFORM_REGISTRY.register
class ResizeShortestEdge(v2.Transform):
    """Scale the shorter side to a size, unless the longer one would become too long.

    Weights trained by another framework want its pixels: "pillow" and "round" make detectron2's,
    "opencv" and "round" mmdetection's, "interpolate" and "floor" those that torchvision's models
    make of their input.

    Args:
        min_size: Length of the shorter side in pixels; of several one is drawn for each image.
        max_size: Greatest length of the longer side.
        method: "torch" and "pillow" antialias, "opencv" does not; all three give uint8.
            "interpolate" gives float32 from 0 to 255, unrounded and not antialiased; of
            torchvision's transforms only those that move pixels may come after it.
        rounding: Of the sides, to the nearest or down.
    """

    def __init__(
        self,
        *,
        min_size: Pixels | list[Pixels] = 800,
        max_size: Pixels = 1333,
        method: ResizeMethod = "torch",
        rounding: Rounding = "round",
    ) -> None:
        super().__init__()
        self.min_sizes = [min_size] if isinstance(min_size, int) else list(min_size)
        if not self.min_sizes:
            raise ValueError("min_size needs at least one size, got an empty list")
        self.max_size = max_size
        self.method = method
        self.rounding = rounding

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the size of this image."""
        height, width = v2.query_size(flat_inputs)
        draw = int(torch.randint(len(self.min_sizes), ())) if len(self.min_sizes) > 1 else 0
        size = shortest_edge_size(
            (height, width),
            self.min_sizes[draw],
            self.max_size,
            method=self.method,
            rounding=self.rounding,
        )
        return {"size": size}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Scale an image or boxes."""
        if not isinstance(inpt, tv_tensors.Image) and not v2.functional.is_pure_tensor(inpt):
            return self._call_kernel(v2.functional.resize, inpt, params["size"], antialias=True)
        image = inpt.as_subclass(torch.Tensor)
        return tv_tensors.wrap(resize_image(image, params["size"], self.method), like=inpt)


@TRANSFORM_REGISTRY.register
class RandomRotate90(v2.Transform):
    """Turn by a random multiple of 90 degrees, without loss; for images that have no up.

    Args:
        p: Probability of turning at all.
    """

    def __init__(self, *, p: Fraction = 0.75) -> None:
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the number of quarter turns."""
        turns = 1 + int(torch.randint(3, ())) if float(torch.rand(())) < self.p else 0
        return {"turns": turns}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turn an image or boxes."""
        for _ in range(params["turns"]):
            inpt = self._call_kernel(v2.functional.rotate, inpt, 90.0, expand=True)
        return inpt


@TRANSFORM_REGISTRY.register
class RandomErasing(v2.RandomErasing):
    """Fill a random rectangle (Zhong et al. 2017, https://arxiv.org/abs/1708.04896).

    torchvision's, whose signature says nothing of a colour.

    Args:
        p: Probability of doing it.
        scale: Least and greatest area, as shares of the image's.
        ratio: Least and greatest width by height.
        value: What to fill with, on the scale of the image: 0 to 255 in uint8; one number or RGB.
    """

    def __init__(
        self,
        *,
        p: Fraction = 0.5,
        scale: tuple[Fraction, Fraction] = (0.02, 0.33),
        ratio: tuple[PositiveFloat, PositiveFloat] = (0.3, 3.3),
        value: float | list[float] = 0.0,
    ) -> None:
        # torchvision's annotation is narrower than what it takes.
        super().__init__(p, scale, ratio, value)  # type: ignore[arg-type]


class _Nested:
    """A transform of transforms: builds the list that its block holds."""

    @classmethod
    def from_config(cls, block: Block) -> Any:
        """Build the transforms, then the one around them."""
        arguments = {**block_arguments(block), "transforms": build_transforms(block.transforms)}
        return cls(**arguments)


@TRANSFORM_REGISTRY.register
class Compose(_Nested, v2.Compose):
    """All transforms of a list, one after the other.

    Args:
        transforms: Blocks.
    """

    def __init__(self, *, transforms: list[v2.Transform]) -> None:
        super().__init__(transforms)


@TRANSFORM_REGISTRY.register
class RandomOrder(_Nested, v2.RandomOrder):
    """All transforms of a list, in random order.

    Args:
        transforms: Blocks.
    """

    def __init__(self, *, transforms: list[v2.Transform]) -> None:
        super().__init__(transforms)


@TRANSFORM_REGISTRY.register
class RandomApply(_Nested, v2.RandomApply):
    """All transforms of a list, or none of them.

    Args:
        transforms: Blocks.
        p: Probability of applying them.
    """

    def __init__(self, *, transforms: list[v2.Transform], p: Fraction = 0.5) -> None:
        super().__init__(transforms, p)


@TRANSFORM_REGISTRY.register
class RandomChoice(_Nested, v2.RandomChoice):
    """One transform of a list.

    Args:
        transforms: Blocks.
        p: Their probabilities; None: all alike.
    """

    def __init__(self, *, transforms: list[v2.Transform], p: list[Fraction] | None = None) -> None:
        super().__init__(transforms, p)


def build_transforms(blocks: Sequence[Block]) -> list[v2.Transform]:
    """Build the transforms of a list of blocks.

    Raises:
        ConfigError: A transform cannot work on what one before it makes.
    """
    transforms: list[v2.Transform] = [TRANSFORM_REGISTRY.build(block) for block in blocks]
    _check_order(transforms)
    return transforms


def _check_order(transforms: Sequence[v2.Transform]) -> None:
    floats = False
    for transform in _flat(transforms):
        if isinstance(transform, v2.MixUp | v2.CutMix):
            raise ConfigError(
                f"{type(transform).__name__} mixes the images of a batch, and here are those of "
                "one image; put it in data.batch_transforms"
            )
        foreign = type(transform).__module__.startswith("torchvision.")
        if floats and foreign and not isinstance(transform, _MOVES_PIXELS):
            known = ", ".join(kind.__name__ for kind in _MOVES_PIXELS)
            raise ConfigError(
                f"{type(transform).__name__} comes after ResizeShortestEdge with method "
                "interpolate, whose float images it would spoil; put it before. After it may "
                f"come: {known}"
            )
        floats |= isinstance(transform, ResizeShortestEdge) and transform.method == "interpolate"


def _flat(transforms: Sequence[v2.Transform]) -> Iterator[v2.Transform]:
    for transform in transforms:
        if isinstance(transform, _Nested):
            yield from _flat(transform.transforms)  # type: ignore[attr-defined]
        else:
            yield transform
