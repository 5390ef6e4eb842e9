"""Transforms of several samples at once, of image classes: MixUp and CutMix.

A process applies them to its own share of a batch, in the worker that loads it, so the partner of a
sample is one of the same process, and pairs depend on the number of processes, as in torchvision's
references/classification. Random numbers are made of (seed, position of the share's first sample).

Images are mixed on the scale of 0 to 255, before the model normalizes them. Normalization being
affine, and shares adding up to 1, that is the same as after it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from ..errors import ConfigError
from ..ranges import Fraction, PositiveFloat
from ..registry import Block, Registry
from .image_dataset import ImageDataset
from .mapper import BrokenSample, seeded

# Keeps these random numbers apart from those of the share's first sample.
_STREAM = 101


class BrokenBatch(str):
    """Why a batch could not be made; workers send this in its place, without a traceback."""


class BatchTransform(ABC):
    """Changes images and their classes together."""

    @abstractmethod
    def __call__(self, images: Tensor, probs: Tensor) -> tuple[Tensor, Tensor]:
        """Map images and class probabilities to others; draws from torch's random numbers.

        Args:
            images: (n, 3, h, w) float32 RGB from 0 to 255.
            probs: (n, K) float32, of each image they add up to 1.

        Returns:
            Both, in the same shapes.
        """


BATCH_TRANSFORM_REGISTRY = Registry(
    "batch transform",
    BatchTransform,
    computed={"num_classes": "the classes of the data sets of `data.train`"},
)


@BATCH_TRANSFORM_REGISTRY.register
class MixUp(BatchTransform):
    """Blend each image with the one before it (Zhang et al. 2017, https://arxiv.org/abs/1710.09412).

    torchvision's ``MixUp``: one share is drawn for all, from Beta(alpha, alpha).

    Args:
        alpha: Of the distribution: near 0 one image outweighs the other, at 1 all shares are alike.
        num_classes: K.
    """

    def __init__(self, *, alpha: PositiveFloat = 1.0, num_classes: int) -> None:
        self.transform = v2.MixUp(alpha=alpha, num_classes=num_classes)

    def __call__(self, images: Tensor, probs: Tensor) -> tuple[Tensor, Tensor]:
        """Blend images and probabilities by the same share."""
        mixed: tuple[Tensor, Tensor] = self.transform(images, probs)
        return mixed


@BATCH_TRANSFORM_REGISTRY.register
class CutMix(BatchTransform):
    """Paste a box of the image before (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    torchvision's ``CutMix``: one box for all, its area from Beta(alpha, alpha), and classes mixed
    by the part of it that is within the image.

    Args:
        alpha: Of the distribution.
        num_classes: K.
    """

    def __init__(self, *, alpha: PositiveFloat = 1.0, num_classes: int) -> None:
        self.transform = v2.CutMix(alpha=alpha, num_classes=num_classes)

    def __call__(self, images: Tensor, probs: Tensor) -> tuple[Tensor, Tensor]:
        """Paste pixels, and blend probabilities by the area."""
        mixed: tuple[Tensor, Tensor] = self.transform(images, probs)
        return mixed


@BATCH_TRANSFORM_REGISTRY.register
class RandomChoice(BatchTransform):
    """One transform of a list.

    Args:
        transforms: Blocks.
        p: Their weights; None: all alike.
    """

    def __init__(
        self, *, transforms: list[BatchTransform], p: list[Fraction] | None = None
    ) -> None:
        if not transforms:
            raise ValueError("transforms needs at least one block, got an empty list")
        if p is not None and len(p) != len(transforms):
            raise ValueError(f"p needs {len(transforms)} entries, one a transform, got {len(p)}")
        if p is not None and not sum(p):
            raise ValueError(f"p needs an entry above 0, got {p}")
        self.transforms = transforms
        self.weights = torch.tensor(p or [1.0] * len(transforms))

    @classmethod
    def from_config(cls, block: Block, num_classes: int) -> "RandomChoice":
        """Build the transforms, then the choice."""
        transforms = [
            BATCH_TRANSFORM_REGISTRY.build(each, num_classes=num_classes)
            for each in block.transforms
        ]
        return cls(transforms=transforms, p=block.get("p"))

    def __call__(self, images: Tensor, probs: Tensor) -> tuple[Tensor, Tensor]:
        """Draw one of them and apply it."""
        return self.transforms[int(torch.multinomial(self.weights, 1))](images, probs)


class BatchMixer:
    """Applies transforms to the samples of a process's share of a batch.

    Args:
        transforms: In order.
        num_classes: K.
        seed: With the position of the share's first sample it makes the random numbers.
    """

    def __init__(
        self, transforms: Sequence[BatchTransform], *, num_classes: int, seed: int
    ) -> None:
        self.transforms = list(transforms)
        self.num_classes = num_classes
        self.seed = seed

    def __call__(self, samples: list[Any]) -> list[Any]:
        """Mix samples of image classes.

        Args:
            samples: Each with ``image`` (3, h, w), ``gt_class`` () int64 and ``position``, or a
                ``BrokenSample``; with one of these all are left as they are.

        Returns:
            As many samples, with ``image`` float32 and ``gt_probs`` (K,) float32 for ``gt_class``;
            or one ``BrokenBatch``, where the images differ in size.
        """
        if not self.transforms or any(isinstance(sample, BrokenSample) for sample in samples):
            return samples
        sizes = sorted({tuple(sample["image"].shape[-2:]) for sample in samples})
        if len(sizes) > 1:
            told = (
                f"data.batch_transforms need images of one size, but one batch has images of "
                f"{' and '.join(f'{h} x {w}' for h, w in sizes[:2])} pixels (height x width); let "
                "data.train_transforms make them alike, as RandomResizedCrop does"
            )
            return [BrokenBatch(told)]
        images = torch.stack([sample["image"] for sample in samples]).float()
        classes = torch.stack([sample["gt_class"] for sample in samples])
        probs = torch.nn.functional.one_hot(classes, self.num_classes).float()
        with seeded(self.seed, samples[0]["position"], _STREAM):
            for transform in self.transforms:
                images, probs = transform(images, probs)
        return [
            {**_without_class(sample), "image": image, "gt_probs": each}
            for sample, image, each in zip(samples, images, probs, strict=True)
        ]


def build_batch_mixer(
    blocks: Sequence[Block], datasets: Sequence[ImageDataset], seed: int
) -> BatchMixer:
    """Build the transforms of ``data.batch_transforms``.

    Raises:
        ConfigError: The data sets have boxes to learn from.
    """
    if blocks and datasets[0].task != "classification":
        names = ", ".join(block.name for block in blocks)
        raise ConfigError(
            f"data.batch_transforms ({names}) mix images of one class each, but "
            f"'{datasets[0].name}' is a data set for {datasets[0].task}; remove the key"
        )
    num_classes = len(datasets[0].class_names)
    transforms = [BATCH_TRANSFORM_REGISTRY.build(b, num_classes=num_classes) for b in blocks]
    return BatchMixer(transforms, num_classes=num_classes, seed=seed)


def _without_class(sample: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sample.items() if key != "gt_class"}
