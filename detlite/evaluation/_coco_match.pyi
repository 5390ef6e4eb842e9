from typing import Any

import numpy as np

from .coco_arrays import CocoArrays
from .coco_matching import Matches

RESAMPLES_AT_ONCE: int

def group_by_class(
    images: np.ndarray, classes: np.ndarray, num_images: int, num_classes: int
) -> tuple[np.ndarray, np.ndarray]: ...
def match_class(arrays: CocoArrays, matches: Matches, k: int) -> None: ...
def class_curves(
    matches: Matches, k: int, precision: np.ndarray, scores: np.ndarray, recall: np.ndarray
) -> None: ...
def resampled_precision(matches: Matches, weights: np.ndarray, means: np.ndarray) -> None: ...
def read_entries(
    entries: list[Any],
    image_index: dict[Any, int],
    class_index: dict[Any, int],
    boxes: np.ndarray,
    images: np.ndarray,
    classes: np.ndarray,
    numbers: np.ndarray,
    number_key: str,
) -> int: ...
