"""Transforms that torchvision lacks; all others are torchvision.transforms.v2 by name.

They draw from torch's random numbers, which the mapper seeds for each sample.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torchvision.transforms import v2

from ..ranges import Fraction, PositiveInt
from ..registry import Block, block_arguments
from .registries import TRANSFORM_REGISTRY


@TRANSFORM_REGISTRY.register
class ResizeShortestEdge(v2.Transform):
    """Scale the shorter side to a size, unless the longer one would become too long.

    Args:
        min_size: Length of the shorter side in pixels; of several one is drawn for each image.
        max_size: Greatest length of the longer side.
    """

    def __init__(
        self, *, min_size: PositiveInt | list[PositiveInt] = 800, max_size: PositiveInt = 1333
    ) -> None:
        super().__init__()
        self.min_sizes = [min_size] if isinstance(min_size, int) else list(min_size)
        if not self.min_sizes:
            raise ValueError("min_size needs at least one size, got an empty list")
        self.max_size = max_size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the size of this image."""
        height, width = v2.query_size(flat_inputs)
        draw = int(torch.randint(len(self.min_sizes), ())) if len(self.min_sizes) > 1 else 0
        shorter = self.min_sizes[draw]
        scale = shorter / min(height, width)
        # In the order in which detectron2 computes them, so that sizes agree to the pixel.
        sides = (shorter, scale * width) if height < width else (scale * height, shorter)
        scale = min(self.max_size / max(sides), 1.0)
        return {"size": [max(int(side * scale + 0.5), 1) for side in sides]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Scale an image or boxes."""
        return self._call_kernel(v2.functional.resize, inpt, params["size"], antialias=True)


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
    """Build the transforms of a list of blocks."""
    return [TRANSFORM_REGISTRY.build(block) for block in blocks]
