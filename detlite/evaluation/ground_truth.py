"""What an evaluator needs of a data set."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class GroundTruth(Protocol):
    """B boxes of N images, image after image, within an image as in the annotation file; K classes.

    The data package implements it; plain attributes serve as well as properties.
    """

    @property
    def name(self) -> str:
        """The data set's name, for messages and folders."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names."""

    @property
    def category_ids(self) -> np.ndarray:
        """(K,) the id that the annotation file gives to each class: int64, or objects (strings)."""

    @property
    def image_ids(self) -> Sequence[Any]:
        """N integers or strings, each once."""

    @property
    def heights(self) -> np.ndarray:
        """(N,) int32 in pixels of the original images."""

    @property
    def widths(self) -> np.ndarray:
        """(N,) int32 in pixels of the original images."""

    @property
    def offsets(self) -> np.ndarray:
        """(N + 1,) int64; ``offsets[i]:offsets[i + 1]`` are the boxes of image ``i``."""

    @property
    def boxes_xywh(self) -> np.ndarray:
        """(B, 4) float64 XYWH in pixels, exactly as in the annotation file."""

    @property
    def classes(self) -> np.ndarray:
        """(B,) int64 in [0, K)."""

    @property
    def areas(self) -> np.ndarray:
        """(B,) float64 in square pixels, as the annotation file states them."""

    @property
    def crowd(self) -> np.ndarray:
        """(B,) bool, boxes around a crowd."""

    @property
    def difficult(self) -> np.ndarray:
        """(B,) bool, VOC's mark for objects that need not be found."""

    @property
    def annotation_ids(self) -> np.ndarray:
        """(B,) int64."""

    def __len__(self) -> int:
        """Number of images."""
