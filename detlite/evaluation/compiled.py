"""The compiled part of the evaluation, or what stands in where it could not be built."""

import functools
import logging
import math
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


def read_entries_in_python(
    entries: list[Any],
    image_index: dict[Any, int],
    class_index: dict[Any, int],
    boxes: np.ndarray,
    images: np.ndarray,
    classes: np.ndarray,
    numbers: np.ndarray,
    number_key: str,
) -> int:
    """The same as ``read_entries`` of ``_coco_read.pxi``, which says what the arguments are."""
    for i, entry in enumerate(entries):
        try:
            images[i] = image_index.get(entry["image_id"], -1)
            classes[i] = class_index.get(entry["category_id"], -1)
            box = [_number(value) for value in entry["bbox"]]
            lacks = number_key == "area" and entry.get("area") is None
            number = math.nan if lacks else _number(entry[number_key])
            if len(box) != 4 or not all(map(math.isfinite, [*box, 0 if lacks else number])):
                return i
            boxes[i], numbers[i] = box, number
        except (TypeError, KeyError, IndexError, ValueError, AttributeError, OverflowError):
            return i
    return -1


def _number(value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError("a text is no number")
    return float(value)


try:
    from ._coco_match import (
        RESAMPLES_AT_ONCE,
        class_curves,
        group_by_class,
        match_class,
        read_entries,
        resampled_precision,
    )

    COMPILED = True
except ImportError:
    COMPILED = False
    read_entries = read_entries_in_python


@functools.cache
def warn_once() -> None:
    """Say, the first time only, that the compiled part is missing and how to get it."""
    logger.warning(
        "detlite's compiled evaluation is not there, so pycocotools evaluates: the same numbers, "
        "slower, without the bootstrap interval. Install a C compiler (gcc, clang or MSVC) and run "
        "`pip install -e .` again"
    )


__all__ = [
    "COMPILED",
    "RESAMPLES_AT_ONCE",
    "class_curves",
    "group_by_class",
    "match_class",
    "read_entries",
    "read_entries_in_python",
    "resampled_precision",
    "warn_once",
]
