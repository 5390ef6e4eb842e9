"""What every data set is: what loaders, samplers, hooks and the predictor rely on."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from .image_io import ImageReader


class ImageDataset(Dataset[dict[str, Any]], ABC):
    """Images with something to learn from; derive from DetectionDataset or ClassificationDataset.

    Attributes:
        name: For log lines and folders of results.
        class_names: The classes, in the order of their numbers.
        image_ids: One an image, all ints or all strings, each once.
        reader: Reads image files; the loaders set the one that the config asks for.
    """

    task: ClassVar[str]
    """What is learnt from it, which the meta-arch and the evaluators must be for."""

    targets: ClassVar[tuple[str, str]]
    """What a target is called, one and many: ("box", "boxes")."""

    name: str
    class_names: tuple[str, ...]
    image_ids: Sequence[int] | Sequence[str]
    reader: ImageReader = ImageReader()

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def file_name(self, i: int) -> str:
        """The full path of image i."""

    @abstractmethod
    def read_image(self, i: int) -> Tensor:
        """Image i, (3, H, W) uint8 RGB, turned upright.

        Raises:
            DataError: It cannot be read.
        """

    @abstractmethod
    def __getitem__(self, i: int) -> dict[str, Any]:
        """Image i with what is learnt from it.

        Returns:
            ``image`` (3, H, W) uint8 RGB, ``file_name``, ``image_id``, ``height``, ``width``, and
            what ``transform_sample`` makes targets of: ``boxes`` and ``classes``, or ``class``.
        """

    @abstractmethod
    def num_targets(self) -> np.ndarray:
        """(N,) int64, how many targets each image has to train on; 0 for an empty image."""

    def class_counts(self) -> np.ndarray | None:
        """(K,) int64, how many targets to train on each class has; None where it is not known."""
        return None

    def renumber_classes(self, class_names: Sequence[str]) -> None:
        """Number the classes as another data set does, of which this one may lack some.

        Args:
            class_names: All names of this data set and maybe others.

        Raises:
            DataError: This data set cannot do that.
        """
        raise DataError(
            f"'{self.name}' numbers its classes {', '.join(self.class_names)}, and "
            f"{type(self).__name__} has no `renumber_classes` to number them otherwise"
        )

    @abstractmethod
    def classes_of(self, i: int) -> np.ndarray:
        """The classes that occur on image i, which samplers may ask for."""

    @abstractmethod
    def image_sizes(self) -> np.ndarray | None:
        """(N, 2) heights and widths in pixels; None where they are not known without reading."""
