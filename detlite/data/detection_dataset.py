"""The contract of a detection data set: the page that the author of a new one reads."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .box_checks import tell_odd_boxes
from .image_dataset import ImageDataset
from .image_io import ImageSizeError
from .index import DetectionIndex


class DetectionDataset(DetectionIndex, ImageDataset):
    """Images with boxes: the index of both, which evaluators read, and the view for training.

    A subclass reads its annotations, then calls this constructor with the folder of the images and
    the arguments of ``DetectionIndex``. One that has no image files overrides ``read_image``.

    Args:
        folder: Where the images are; ``file_names`` are relative to it.
        index: The arguments of ``DetectionIndex``.
    """

    task = "detection"
    targets = ("box", "boxes")

    def __init__(self, *, folder: str | Path, **index: Any) -> None:
        super().__init__(**index)
        self.folder = Path(folder)
        tell_odd_boxes(self, self.describe_box)

    def file_name(self, i: int) -> str:
        """The full path of image i."""
        return str(self.folder / self.file_names[i])

    def read_image(self, i: int) -> Tensor:
        """Read image i, turned upright by its EXIF orientation.

        Returns:
            (3, H, W) uint8 RGB.

        Raises:
            DataError: The file cannot be read, or has another size than the annotations say.
        """
        height, width = int(self.heights[i]), int(self.widths[i])
        try:
            return self.reader.read(self.file_name(i), size=(height, width))
        except ImageSizeError as error:
            turned = error.size == (width, height)
            cause = "; its EXIF orientation, by which it was turned, may be the cause"
            raise DataError(
                f"image file '{self.file_name(i)}' has height {error.size[0]} and width "
                f"{error.size[1]}, but the annotations of {self.name} say height {height} and "
                f"width {width}{cause if turned else ''}. Boxes would not fit; correct the "
                "annotations or the image"
            ) from None

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Image i with the boxes to train on: no crowds, nothing degenerate, clipped to the image.

        Returns:
            ``image`` (3, H, W) uint8 RGB; ``boxes`` (g, 4) float32 XYXY in pixels; ``classes`` (g,)
            int64; ``difficult`` (g,) bool; ``file_name``, ``image_id``, ``height``, ``width``.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"index {i} is out of range for the {len(self)} images of {self.name}")
        here = self.boxes_of(i)
        kept = ~(self.crowd[here] | self.degenerate[here])
        return {
            "image": self.read_image(i),
            "file_name": self.file_name(i),
            "image_id": self.image_ids[i],
            "height": int(self.heights[i]),
            "width": int(self.widths[i]),
            "boxes": torch.from_numpy(self.clipped_boxes(i)[kept]),
            "classes": torch.from_numpy(self.classes[here][kept]),
            "difficult": torch.from_numpy(self.difficult[here][kept]),
        }

    def num_targets(self) -> np.ndarray:
        """(N,) int64, the boxes of each image that are neither degenerate nor a crowd."""
        return self.num_training_boxes()

    def class_counts(self) -> np.ndarray:
        """(K,) int64, the boxes of each class that are neither degenerate nor a crowd."""
        kept = ~(self.crowd | self.degenerate)
        return np.bincount(self.classes[kept], minlength=len(self.class_names))

    def classes_of(self, i: int) -> np.ndarray:
        """The classes of the boxes of image i, each once."""
        return np.unique(self.classes[self.boxes_of(i)])

    def image_sizes(self) -> np.ndarray:
        """(N, 2) heights and widths in pixels, as the annotations say them."""
        return np.stack([self.heights, self.widths], axis=1)

    def describe_box(self, i: int, box: int) -> str:
        """Where the annotation file holds a box of image i; ``box`` counts over all images."""
        return f"{self.file_names[i]}: annotation {self.annotation_ids[box]}"
