"""The compact record store: all images and boxes of a data set in a few flat arrays.

A Python object per box would be copied into every worker of a loader, because touching an object
writes its reference count; flat arrays stay shared.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from ..errors import DataError
from .class_names import check_class_names


class PackedStrings(Sequence[str]):
    """Strings in one buffer of bytes."""

    def __init__(self, strings: Iterable[str]) -> None:
        # Names that are not UTF-8 on disk hold lone surrogates.
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        self._buffer = b"".join(encoded)
        self._offsets = _offsets_from_counts([len(part) for part in encoded])

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, item: int) -> str: ...
    @overload
    def __getitem__(self, item: slice) -> list[str]: ...
    def __getitem__(self, item: int | slice) -> str | list[str]:
        if isinstance(item, slice):
            return [self[i] for i in range(len(self))[item]]
        i = range(len(self))[item]
        return self._buffer[self._offsets[i] : self._offsets[i + 1]].decode(
            "utf-8", "surrogatepass"
        )


class DetectionIndex:
    """Images, boxes and classes of a data set; B boxes of N images, in the order of the images.

    Args:
        name: The data set's name, for log lines and folders of results.
        categories: Class names, each with its id in the annotation file, an int or a string, in the
            order of classes.
        image_ids: N ids, all ints or all strings.
        file_names: N file names.
        sizes: (N, 2) height and width in pixels.
        box_images: (B,) the image of each box, as an index from 0; in any order.
        boxes_xywh: (B, 4) in pixels, exactly as in the file.
        classes: (B,) classes, from 0.
        areas: (B,) in square pixels; the boxes' own areas if not given.
        crowd: (B,) whether the box holds a crowd.
        difficult: (B,) whether the object is marked as difficult.
        annotation_ids: (B,) ids in the annotation file; 1..B if not given.

    Raises:
        DataError: A class name cannot be one, there are too many, or an image id is not UTF-8.
    """

    name: str
    class_names: tuple[str, ...]
    category_ids: np.ndarray
    """(K,) the id of each class in the annotation file: int64, or objects where an id is a string
    or beyond 64 bits."""
    image_ids: Sequence[int] | Sequence[str]
    file_names: PackedStrings
    heights: np.ndarray
    widths: np.ndarray
    offsets: np.ndarray
    """(N + 1,) int64; the boxes of image i are ``offsets[i]:offsets[i + 1]``."""
    boxes_xywh: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    annotation_ids: np.ndarray
    degenerate: np.ndarray
    """(B,) bool; boxes that are empty, inverted, not finite or wholly outside their image."""

    def __init__(
        self,
        *,
        name: str,
        categories: Mapping[str, int] | Mapping[str, str],
        image_ids: Sequence[int] | Sequence[str],
        file_names: Sequence[str],
        sizes: Any,
        box_images: Any,
        boxes_xywh: Any,
        classes: Any,
        areas: Any = None,
        crowd: Any = None,
        difficult: Any = None,
        annotation_ids: Any = None,
    ) -> None:
        self.name = name
        self.class_names = tuple(categories)
        check_class_names(self.class_names, name)
        self.category_ids = _id_array(list(categories.values()))
        self.image_ids = _pack_ids(image_ids)
        self.file_names = PackedStrings(file_names)
        self.heights, self.widths = np.asarray(sizes, np.int32).reshape(-1, 2).T.copy()

        images = np.asarray(box_images, np.int64)
        order = np.argsort(images, kind="stable")
        self.offsets = _offsets_from_counts(np.bincount(images, minlength=len(image_ids)))
        boxes = np.asarray(boxes_xywh, np.float64).reshape(-1, 4)
        self.boxes_xywh = boxes[order]
        self.classes = np.asarray(classes, np.int64)[order]
        with np.errstate(invalid="ignore", over="ignore"):
            own_areas = boxes[:, 2] * boxes[:, 3]
        self.areas = _column(areas, order, own_areas, np.float64)
        self.crowd = _column(crowd, order, np.zeros(len(order)), bool)
        self.difficult = _column(difficult, order, np.zeros(len(order)), bool)
        self.annotation_ids = _column(annotation_ids, order, 1 + np.arange(len(order)), np.int64)
        self.degenerate = self._find_degenerate()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def boxes_of(self, i: int) -> slice:
        """Where the boxes of image i are in the arrays of boxes."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def clipped_boxes(self, i: int) -> np.ndarray:
        """All boxes (b, 4) of image i, XYXY in pixels, clipped to the image, float32."""
        return _clip(self.boxes_xywh[self.boxes_of(i)], self.heights[i], self.widths[i])

    def renumber_classes(self, class_names: Sequence[str]) -> None:
        """Number the classes as another data set does, of which this one may lack some.

        A class that is new here takes an id that no other has.

        Args:
            class_names: All names of this data set and maybe others.
        """
        own = dict(zip(self.class_names, self.category_ids.tolist(), strict=True))
        numbers = {name: k for k, name in enumerate(class_names)}
        self.classes = np.array([numbers[name] for name in own], np.int64)[self.classes]
        self.category_ids = _id_array(_completed_ids(own, class_names))
        self.class_names = tuple(class_names)

    def num_training_boxes(self) -> np.ndarray:
        """(N,) int64, the boxes of each image that are neither degenerate nor a crowd."""
        kept = np.concatenate([[0], np.cumsum(~(self.degenerate | self.crowd))])
        return kept[self.offsets[1:]] - kept[self.offsets[:-1]]

    def _find_degenerate(self) -> np.ndarray:
        images = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        xyxy = _clip(self.boxes_xywh, self.heights[images], self.widths[images])
        filled = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        return ~(filled & np.isfinite(self.boxes_xywh).all(axis=1))


def _clip(boxes_xywh: np.ndarray, heights: Any, widths: Any) -> np.ndarray:
    x, y, w, h = boxes_xywh.T
    with np.errstate(invalid="ignore", over="ignore"):
        right, bottom = x + w, y + h
    sides = x.clip(0, widths), y.clip(0, heights), right.clip(0, widths), bottom.clip(0, heights)
    return np.stack(sides, axis=1).astype(np.float32)


def _column(values: Any, order: np.ndarray, default: np.ndarray, dtype: type) -> np.ndarray:
    return np.asarray(default if values is None else values, dtype)[order]


def _offsets_from_counts(counts: Any) -> np.ndarray:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _pack_ids(ids: Sequence[int] | Sequence[str]) -> Sequence[int] | Sequence[str]:
    # An array of the standard library gives Python ints, which json can write; numpy's does not.
    if any(not isinstance(value, int) for value in ids):
        texts = [str(value) for value in ids]
        odd = next((text for text in texts if not _is_utf8(text)), None)
        if odd is not None:
            raise DataError(f"image id {odd!r} is not UTF-8, as files of results must be")
        return PackedStrings(texts)
    try:
        return array("q", ids)  # type: ignore[arg-type]
    except OverflowError:  # beyond 64 bits, as hashes are
        return tuple(ids)  # type: ignore[return-value]


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _id_array(ids: Sequence[int | str]) -> np.ndarray:
    if all(isinstance(value, int) and abs(value) < 2**63 for value in ids):
        return np.array(ids, np.int64)
    return np.array(ids, object)


def _completed_ids(own: Mapping[str, int | str], names: Sequence[str]) -> list[int | str]:
    """The ids of these classes; new ones for those that have none."""
    taken = {*own.values()}
    as_text = any(isinstance(value, str) for value in taken)
    free = max((value for value in taken if isinstance(value, int)), default=0)
    ids: list[int | str] = []
    for name in names:
        number: int | str | None = own.get(name)
        if number is None:
            free += 1
            number = free
            if as_text:
                number = name
                while number in taken:
                    number += "_"
            taken.add(number)
        ids.append(number)
    return ids
