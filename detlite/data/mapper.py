"""From a data set's sample to the model's input: transforms, with randomness from the position."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..errors import DataError
from ..structures import Instances
from .detection_dataset import DetectionDataset
from .samplers import SamplePosition

# Boxes that a crop leaves less of, in pixels, are dropped: nothing can be seen in them.
MIN_BOX_SIZE = 1.0
MAX_ATTEMPTS = 10


class BrokenSample(str):
    """Why a sample could not be made; workers send this in its place, without a traceback."""


class TrainingData(Dataset[Any]):
    """The training data sets joined, transformed.

    Args:
        datasets: Their indices follow one another.
        transforms: Applied in order.
        seed: With a sample's position it makes all its random numbers.
        replacements: Images, by index, of which one takes the place of an unreadable image; None
            to report it instead.
    """

    def __init__(
        self,
        datasets: Sequence[DetectionDataset],
        transforms: Sequence[v2.Transform],
        *,
        seed: int = 0,
        replacements: np.ndarray | None = None,
    ) -> None:
        self.datasets = list(datasets)
        self.transforms = list(transforms)
        self.seed = seed
        self.replacements = replacements
        self.starts = np.cumsum([0] + [len(dataset) for dataset in datasets])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, sample: SamplePosition) -> dict[str, Any] | BrokenSample:
        """The sample at a position.

        Returns:
            ``image`` uint8 (3, H, W) RGB, or float32 from 0 to 255 where a transform makes it,
            ``instances`` with gt_boxes (G, 4) and gt_classes (G,), ``file_name``, ``image_id``,
            ``height`` and ``width`` before the transforms, and ``skipped``, a message for each
            image that could not be read.
        """
        skipped: list[str] = []
        index = sample.image
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                record = self._read(index)
            except DataError as error:
                if self.replacements is None:
                    return BrokenSample(error)
                skipped.append(str(error))
                generator = np.random.default_rng([self.seed, sample.position, attempt])
                index = int(generator.choice(self.replacements))
            else:
                with seeded(self.seed, sample.position):
                    return {**transform_sample(record, self.transforms), "skipped": skipped}
        return BrokenSample(
            f"{MAX_ATTEMPTS} images in a row could not be read, the last because: {skipped[-1]}"
        )

    def _read(self, index: int) -> dict[str, Any]:
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.datasets[which][index - int(self.starts[which])]


class TestData(Dataset[Any]):
    """A test data set, transformed.

    Args:
        dataset: The data set.
        transforms: Applied in order to the image; they may scale it, and nothing else.
    """

    __test__ = False  # not a test, for pytest

    def __init__(self, dataset: DetectionDataset, transforms: Sequence[v2.Transform]) -> None:
        self.dataset = dataset
        self.transforms = list(transforms)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any] | BrokenSample:
        """Image ``index``: as a training sample, ``height`` and ``width`` are the original's."""
        try:
            return transform_sample(self.dataset[index], self.transforms)
        except DataError as error:
            return BrokenSample(error)


def transform_sample(record: dict[str, Any], transforms: Sequence[v2.Transform]) -> dict[str, Any]:
    """Apply transforms to a data set's sample; boxes follow the image.

    Args:
        record: What ``DetectionDataset.__getitem__`` gives.
        transforms: Applied in order.
    """
    image = tv_tensors.Image(record["image"])
    canvas: tuple[int, int] = tuple(image.shape[-2:])  # type: ignore[assignment]
    boxes = tv_tensors.BoundingBoxes(record["boxes"], format="XYXY", canvas_size=canvas)  # type: ignore[call-overload]
    sample = {"image": image, "boxes": boxes, "labels": record["classes"]}
    for transform in transforms:
        sample = transform(sample)
    image, boxes, classes = sample["image"], sample["boxes"], sample["labels"]
    size: tuple[int, int] = tuple(image.shape[-2:])  # type: ignore[assignment]
    boxes = v2.functional.clamp_bounding_boxes(boxes).as_subclass(torch.Tensor)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_BOX_SIZE).all(dim=1)
    instances = Instances(size, gt_boxes=boxes[kept], gt_classes=classes[kept])
    others = ("file_name", "image_id", "height", "width")
    return {
        "image": image.as_subclass(torch.Tensor).contiguous(),
        "instances": instances,
        **{key: record[key] for key in others},
    }


@contextlib.contextmanager
def seeded(seed: int, position: int) -> Iterator[None]:
    """Random numbers of torch, numpy and Python made of (seed, position); then as they were."""
    states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    drawn = int(np.random.SeedSequence([seed, position]).generate_state(1, np.uint64)[0] >> 1)
    torch.random.default_generator.manual_seed(drawn)
    np.random.seed(drawn % 2**32)
    random.seed(drawn)
    try:
        yield
    finally:
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
