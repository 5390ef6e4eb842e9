"""From a data set's sample to the model's input: transforms, with randomness from the position."""

import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..errors import DataError
from ..structures import Instances
from .image_dataset import ImageDataset
from .image_io import PassingReadError, may_pass
from .samplers import SamplePosition
from .worker import ImportedModules, SampleTable

# Boxes that a crop leaves less of, in pixels, are dropped: nothing can be seen in them.
MIN_BOX_SIZE = 1.0
MAX_ATTEMPTS = 10
RETRY_PAUSE = 0.1  # seconds before the second attempt to read; each further pause is twice as long


class BrokenSample(str):
    """Why a sample could not be made; workers send this in its place, without a traceback."""


class LostImage(str):
    """Why an image is passed over: the workers that were at it died, or did not come to an end."""


class Samples(Dataset[Any]):
    """What training and test data share: images are read with patience, and workers say which.

    Args:
        datasets: Their indices follow one another.
        transforms: Applied in order.
        read_retries: How often reading is tried again where the error may pass.
        imports: Modules that classes of the data sets and transforms come from.

    Attributes:
        table: In which workers write what they are at; None: nobody wants to know.
        retried_reads: Attempts to read that were repeated for the sample at hand.
    """

    def __init__(
        self,
        datasets: Sequence[ImageDataset],
        transforms: Sequence[v2.Transform],
        *,
        read_retries: int = 0,
        imports: Sequence[str] = (),
    ) -> None:
        # The first attribute, so that it is unpickled before the classes that it makes known.
        self.modules = ImportedModules(imports)
        self.datasets = list(datasets)
        self.transforms = list(transforms)
        self.read_retries = read_retries
        self.starts = np.cumsum([0] + [len(dataset) for dataset in datasets])
        self.table: SampleTable | None = None
        self.retried_reads = 0

    def __len__(self) -> int:
        return int(self.starts[-1])

    def file_name(self, image: int) -> str:
        """The full path of an image, by its index."""
        dataset, index = self._place(image)
        return dataset.file_name(index)

    def _place(self, image: int) -> tuple[ImageDataset, int]:
        which = int(np.searchsorted(self.starts, image, side="right")) - 1
        return self.datasets[which], image - int(self.starts[which])

    @contextlib.contextmanager
    def _at(self, position: int, image: int) -> Iterator[None]:
        if self.table is None:
            yield
            return
        self.table.begin(position, image)
        try:
            yield
        except Exception:
            self.table.end()
            raise
        # Where the process exits, the row stays and tells why.
        self.table.end()

    def _read(self, image: int) -> dict[str, Any]:
        dataset, index = self._place(image)
        for failed in range(self.read_retries + 1):
            try:
                return dataset[index]
            except (PassingReadError, OSError) as error:
                if not may_pass(error) or failed == self.read_retries:
                    raise self._told(error, image, failed + 1) from error
                time.sleep(RETRY_PAUSE * 2**failed)
                self.retried_reads += 1
        raise AssertionError("the last attempt returns or raises")

    def _told(self, error: Exception, image: int, attempts: int) -> DataError:
        told = str(error)
        if not isinstance(error, DataError):
            told = f"image '{self.file_name(image)}' cannot be read: {error}"
        return DataError(f"{told} (the last of {attempts} attempts)" if attempts > 1 else told)


class TrainingData(Samples):
    """The training data sets joined, transformed.

    Args:
        datasets: Their indices follow one another.
        transforms: Applied in order.
        seed: With a sample's position it makes all its random numbers.
        replacements: Images, by index, of which one takes the place of an image that is passed
            over; all of them if not given.
        skip_broken: Whether an unreadable image is passed over, and not reported.
        read_retries: How often reading is tried again before that, where the error may pass.
        imports: Modules that classes of the data sets and transforms come from.

    Attributes:
        lost: By position the images that are passed over there, without reading them.
    """

    def __init__(
        self,
        datasets: Sequence[ImageDataset],
        transforms: Sequence[v2.Transform],
        *,
        seed: int = 0,
        replacements: np.ndarray | None = None,
        skip_broken: bool = False,
        read_retries: int = 0,
        imports: Sequence[str] = (),
    ) -> None:
        super().__init__(datasets, transforms, read_retries=read_retries, imports=imports)
        self.seed = seed
        self.replacements = np.arange(len(self)) if replacements is None else replacements
        self.skip_broken = skip_broken
        self.lost: dict[int, list[int]] = {}

    def __getitem__(self, sample: SamplePosition) -> dict[str, Any] | BrokenSample:
        """The sample at a position.

        Returns:
            ``image`` uint8 (3, H, W) RGB, or float32 from 0 to 255 where a transform makes it,
            ``instances`` with gt_boxes (G, 4) and gt_classes (G,), or ``gt_class`` () int64,
            ``file_name``, ``image_id``, ``height`` and ``width`` before the transforms,
            ``position`` in the stream, ``skipped``, a message for each image that is passed over,
            and ``retried_reads``, attempts to read that were repeated.
        """
        skipped: list[str] = []
        self.retried_reads = 0
        image = sample.image
        for attempt in range(1, MAX_ATTEMPTS + 1):
            if image in self.lost.get(sample.position, ()):
                skipped.append(LostImage(f"data workers were lost at '{self.file_name(image)}'"))
            else:
                try:
                    with self._at(sample.position, image):
                        made = self._make(sample.position, image)
                    return {
                        **made,
                        "position": sample.position,
                        "skipped": skipped,
                        "retried_reads": self.retried_reads,
                    }
                except DataError as error:
                    if not self.skip_broken:
                        return BrokenSample(error)
                    skipped.append(str(error))
            generator = np.random.default_rng([self.seed, sample.position, attempt])
            image = int(generator.choice(self.replacements))
        return BrokenSample(
            f"{MAX_ATTEMPTS} images in a row could not be read, the last because: {skipped[-1]}"
        )

    def _make(self, position: int, image: int) -> dict[str, Any]:
        record = self._read(image)
        with seeded(self.seed, position):
            return transform_sample(record, self.transforms)


class TestData(Samples):
    """A test data set, transformed.

    Args:
        dataset: The data set.
        transforms: Applied in order to the image; they may scale it, and nothing else.
        read_retries: How often reading is tried again where the error may pass.
        imports: Modules that classes of the data set and transforms come from.
    """

    __test__ = False  # not a test, for pytest

    def __init__(
        self,
        dataset: ImageDataset,
        transforms: Sequence[v2.Transform],
        *,
        read_retries: int = 0,
        imports: Sequence[str] = (),
    ) -> None:
        super().__init__([dataset], transforms, read_retries=read_retries, imports=imports)

    def __getitem__(self, image: int) -> dict[str, Any] | BrokenSample:
        """Sample ``image``: as in training, ``height`` and ``width`` are the original's."""
        self.retried_reads = 0
        try:
            with self._at(image, image):
                made = transform_sample(self._read(image), self.transforms)
            return {**made, "retried_reads": self.retried_reads}
        except DataError as error:
            return BrokenSample(error)


def transform_sample(record: dict[str, Any], transforms: Sequence[v2.Transform]) -> dict[str, Any]:
    """Apply transforms to a data set's sample; boxes follow the image, a class stays as it is.

    Args:
        record: What ``ImageDataset.__getitem__`` gives.
        transforms: Applied in order.

    Returns:
        ``image``; ``instances`` of what has ``boxes``, ``gt_class`` of what has a ``class``; and
        the record's other entries, such as ``file_name``.
    """
    image = tv_tensors.Image(record["image"])
    sample: dict[str, Any] = {"image": image}
    if "boxes" in record:
        canvas: tuple[int, int] = tuple(image.shape[-2:])  # type: ignore[assignment]
        sample["boxes"] = tv_tensors.BoundingBoxes(
            record["boxes"], format="XYXY", canvas_size=canvas
        )  # type: ignore[call-overload]
        sample["labels"] = record["classes"]
    elif "class" in record:
        sample["labels"] = record["class"]
    for transform in transforms:
        sample = transform(sample)
    made = {"image": sample["image"].as_subclass(torch.Tensor).contiguous()}
    if "boxes" in record:
        made["instances"] = _instances(sample)
    elif "class" in record:
        made["gt_class"] = sample["labels"]
    others = ("file_name", "image_id", "height", "width")
    return {**made, **{key: record[key] for key in others}}


def _instances(sample: dict[str, Any]) -> Instances:
    size: tuple[int, int] = tuple(sample["image"].shape[-2:])  # type: ignore[assignment]
    boxes = v2.functional.clamp_bounding_boxes(sample["boxes"]).as_subclass(torch.Tensor)
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_BOX_SIZE).all(dim=1)
    return Instances(size, gt_boxes=boxes[kept], gt_classes=sample["labels"][kept])


@contextlib.contextmanager
def seeded(seed: int, *position: int) -> Iterator[None]:
    """Random numbers of torch, numpy and Python made of (seed, position); then as they were."""
    states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    drawn = int(np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0] >> 1)
    torch.random.default_generator.manual_seed(drawn)
    np.random.seed(drawn % 2**32)
    random.seed(drawn)
    try:
        yield
    finally:
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
