"""The contract of a classification data set: the page that the author of a new one reads."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .class_names import check_class_names
from .image_dataset import ImageDataset
from .index import PackedStrings


class ClassificationDataset(ImageDataset):
    """Images of one class each, N of them, in flat arrays.

    A subclass finds its images, then calls this constructor. One that has no image files overrides
    ``read_image``. An image's id is its file name.

    Args:
        name: For log lines and folders of results.
        class_names: In the order of their numbers.
        folder: Where the images are; ``file_names`` are relative to it.
        file_names: N, each once.
        classes: (N,) the class of each image, from 0.

    Attributes:
        classes: (N,) int64.

    Raises:
        DataError: There is no image or no class, or a name stands twice.
    """

    task = "classification"
    targets = ("label", "labels")

    def __init__(
        self,
        *,
        name: str,
        class_names: Sequence[str],
        folder: str | Path,
        file_names: Sequence[str],
        classes: Any,
    ) -> None:
        self.name = name
        self.class_names = tuple(class_names)
        self.folder = Path(folder)
        self.file_names = PackedStrings(file_names)
        self.image_ids = self.file_names
        self.classes = np.asarray(classes, np.int64)
        self._check(file_names)

    def __len__(self) -> int:
        return len(self.classes)

    def file_name(self, i: int) -> str:
        """The full path of image i."""
        return str(self.folder / self.file_names[i])

    def read_image(self, i: int) -> Tensor:
        """Read image i, (3, H, W) uint8 RGB, turned upright by its EXIF orientation.

        Raises:
            DataError: The file cannot be read.
        """
        return self.reader.read(self.file_name(i))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Image i with its class.

        Returns:
            ``image`` (3, H, W) uint8 RGB; ``class`` () int64; ``file_name``, ``image_id``,
            ``height``, ``width``.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"index {i} is out of range for the {len(self)} images of {self.name}")
        image = self.read_image(i)
        return {
            "image": image,
            "file_name": self.file_name(i),
            "image_id": self.image_ids[i],
            "height": int(image.shape[1]),
            "width": int(image.shape[2]),
            "class": torch.tensor(int(self.classes[i])),
        }

    def num_targets(self) -> np.ndarray:
        """(N,) int64: one label an image."""
        return np.ones(len(self), np.int64)

    def class_counts(self) -> np.ndarray:
        """(K,) int64, the images of each class."""
        return np.bincount(self.classes, minlength=len(self.class_names))

    def renumber_classes(self, class_names: Sequence[str]) -> None:
        """Number the classes as another data set does, of which this one may lack some."""
        numbers = {name: k for k, name in enumerate(class_names)}
        self.classes = np.array([numbers[name] for name in self.class_names])[self.classes]
        self.class_names = tuple(class_names)

    def classes_of(self, i: int) -> np.ndarray:
        """The class of image i, (1,)."""
        return self.classes[i : i + 1]

    def image_sizes(self) -> None:
        """Not known: nothing says them but the images."""
        return None

    def _check(self, file_names: Sequence[str]) -> None:
        if not self.class_names or not len(self):
            raise DataError(
                f"'{self.name}' has {len(self)} images of {len(self.class_names)} classes; a data "
                "set needs at least one of each"
            )
        check_class_names(self.class_names, self.name)
        if len(file_names) != len(self.classes):
            raise DataError(
                f"'{self.name}' has {len(file_names)} file names and {len(self.classes)} classes "
                "of images; there must be one for each"
            )
        if len({*file_names}) < len(file_names):
            ordered = sorted(file_names)
            twice = next(a for a, b in pairwise(ordered) if a == b)
            raise DataError(f"'{self.name}' names the image '{twice}' more than once")
        wrong = self.classes[(self.classes < 0) | (self.classes >= len(self.class_names))]
        if len(wrong):
            raise DataError(
                f"classes of '{self.name}' must lie in [0, {len(self.class_names)}), got {wrong[0]}"
            )
