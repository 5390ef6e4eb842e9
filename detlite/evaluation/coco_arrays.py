"""Ground truth and detections of a COCO evaluation as flat arrays, and how JSON becomes them."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import DataError
from ..utils.text_file import shown
from .compiled import read_entries

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoArrays:
    """N images, K classes, G annotated boxes, D detections.

    The order of boxes within an image matters where scores or overlaps are equal: it is that of
    the files. So does the order of images, which is that of their ids.

    Attributes:
        image_ids: N ids, ascending.
        category_ids: K ids, ascending.
        class_names: K names.
        gt_boxes: (G, 4) float64 XYWH in pixels.
        gt_areas: (G,) float64 in square pixels, as the annotation file states them.
        gt_crowd: (G,) uint8, 1 for a box around a crowd.
        gt_images: (G,) int32 in [0, N).
        gt_classes: (G,) int32 in [0, K).
        boxes: (D, 4) float64 XYWH in pixels.
        scores: (D,) float64.
        images: (D,) int32 in [0, N).
        classes: (D,) int32 in [0, K).
    """

    image_ids: Sequence[Any]
    category_ids: Sequence[Any]
    class_names: Sequence[str]
    gt_boxes: np.ndarray
    gt_areas: np.ndarray
    gt_crowd: np.ndarray
    gt_images: np.ndarray
    gt_classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    images: np.ndarray
    classes: np.ndarray


def coco_arrays(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> CocoArrays:
    """Turn the content of an annotation file and of a results file into arrays.

    Args:
        ground_truth: ``images``, ``categories`` and ``annotations``, boxes as XYWH in pixels. A
            missing ``area`` is that of the box, a missing ``iscrowd`` is 0. Boxes of images or
            categories that are not listed do not count, as in pycocotools; a warning says so.
        results: Dicts of ``image_id``, ``category_id``, ``bbox`` (XYWH in pixels) and ``score``.
            Those of unknown categories do not count, with a warning.

    Raises:
        DataError: An entry cannot be read, or a result's image is not in the ground truth.
    """
    images = _ordered(_ids(ground_truth, "images"))
    categories = _ordered(_ids(ground_truth, "categories"))
    names = {c["id"]: str(c.get("name", c["id"])) for c in ground_truth["categories"]}
    image_index = {key: i for i, key in enumerate(images)}
    class_index = {key: k for k, key in enumerate(categories)}
    annotations = _entries(ground_truth, "annotations")
    _check_annotation_ids(annotations)
    gt_boxes, gt_areas, gt_images, gt_classes = _read(
        annotations, "annotation", "area", image_index, class_index
    )
    with np.errstate(over="ignore"):  # an area may be infinite, as in pycocotools
        gt_areas = np.where(np.isnan(gt_areas), gt_boxes[:, 2] * gt_boxes[:, 3], gt_areas)
    crowd = _crowd(annotations)
    boxes, scores, result_images, classes = no_detections()
    known = (gt_images >= 0) & (gt_classes >= 0)
    if not known.all():
        logger.warning(
            "%d annotations of images or categories that the file does not list do not count",
            len(known) - known.sum(),
        )
    truth = CocoArrays(
        image_ids=images,
        category_ids=categories,
        class_names=[names[key] for key in categories],
        gt_boxes=gt_boxes[known],
        gt_areas=gt_areas[known],
        gt_crowd=crowd[known],
        gt_images=gt_images[known],
        gt_classes=gt_classes[known],
        boxes=boxes,
        scores=scores,
        images=result_images,
        classes=classes,
    )
    return _with_results(truth, results, image_index, class_index)


def no_detections() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores, images and classes of nothing."""
    return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int32), np.zeros(0, np.int32)


def _with_results(
    truth: CocoArrays,
    results: Sequence[Mapping[str, Any]],
    image_index: dict[Any, int],
    class_index: dict[Any, int],
) -> CocoArrays:
    if not isinstance(results, Sequence) or isinstance(results, str | bytes):
        raise DataError(
            f"the results must be a list of detections, got a {type(results).__name__}; each is "
            "a dict of image_id, category_id, bbox and score"
        )
    boxes, scores, images, classes = _read(results, "result", "score", image_index, class_index)
    _check_images(results, images, truth.image_ids)
    known = classes >= 0
    if not known.all():
        others = {results[i]["category_id"] for i in np.flatnonzero(~known).tolist()}
        logger.warning(
            "%d results of unknown category ids do not count: %s",
            len(known) - known.sum(),
            _ordered(others),
        )
        boxes, scores, images, classes = (x[known] for x in (boxes, scores, images, classes))
    return replace(truth, boxes=boxes, scores=scores, images=images, classes=classes)


def _entries(ground_truth: Mapping[str, Any], section: str) -> list[Any]:
    if isinstance(ground_truth, Mapping) and section in ground_truth:
        return list(ground_truth[section])
    got = f"a {type(ground_truth).__name__}"
    if isinstance(ground_truth, Mapping):
        got = f"one with {', '.join(map(str, ground_truth)) or 'nothing'}"
    raise DataError(
        "the ground truth must be a dict with the lists images, categories and annotations, "
        f"got {got}"
    )


def _ids(ground_truth: Mapping[str, Any], section: str) -> set[Any]:
    entries = _entries(ground_truth, section)
    for i, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), int | float | str):
            raise DataError(
                f"entry {i} of `{section}` must be an object whose `id` is a number or a text, "
                f"got {shown(entry)}"
            )
    return {entry["id"] for entry in entries}


def _ordered(ids: Iterable[Any]) -> list[Any]:
    """Ascending; numbers stand before texts where a file has both."""
    return sorted(ids, key=lambda key: (isinstance(key, str), key))


def _read(
    entries: Sequence[Any],
    what: str,
    number_key: str,
    image_index: dict[Any, int],
    class_index: dict[Any, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4), numbers (n,), images (n,) and classes (n,); -1 for what is unknown."""
    n = len(entries)
    boxes, numbers = np.empty((n, 4)), np.empty(n)
    images, classes = np.empty(n, np.int32), np.empty(n, np.int32)
    listed = entries if type(entries) is list else list(entries)
    wrong = read_entries(
        listed, image_index, class_index, boxes, images, classes, numbers, number_key
    )
    negative = np.flatnonzero((boxes[: wrong if wrong >= 0 else n, 2:] < 0).any(axis=1))
    if len(negative):
        wrong = int(negative[0])
    if wrong >= 0:
        raise DataError(f"{what} {wrong} of {n}: {_mistake(listed[wrong], number_key)}")
    return boxes, numbers, images, classes


def _mistake(entry: Any, number_key: str) -> str:
    """What is wrong with an entry that could not be read."""
    if not isinstance(entry, Mapping):
        return f"it must be an object with image_id, category_id and bbox, got {shown(entry)}"
    needed = ["image_id", "category_id", "bbox", *(["score"] if number_key == "score" else [])]
    missing = [key for key in needed if key not in entry]
    if missing:
        also = "; boxes are evaluated here, not masks or keypoints" if "bbox" in missing else ""
        return f"it has no {' and no '.join(missing)}, only {', '.join(map(str, entry))}{also}"
    for key in ("image_id", "category_id"):
        if not isinstance(entry[key], int | float | str | np.generic):
            return f"`{key}` must be a number or a text, got {shown(entry[key])}"
    box = entry["bbox"]
    numbers = [*box] if isinstance(box, Sequence | np.ndarray) and not isinstance(box, str) else []
    if len(numbers) != 4 or not all(map(_is_finite, numbers)):
        return f"`bbox` must be four finite numbers x, y, width, height, got {shown(box)}"
    if min(float(numbers[2]), float(numbers[3])) < 0:
        return (
            f"width and height of `bbox` must not be negative, got {shown(box)}; it is "
            "[x, y, width, height], not two corners"
        )
    return f"`{number_key}` must be a finite number, got {shown(entry[number_key])}"


def _is_finite(value: Any) -> bool:
    try:
        return not isinstance(value, str | bytes) and math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def _crowd(annotations: Sequence[Mapping[str, Any]]) -> np.ndarray:
    flags = [entry.get("iscrowd") or 0 for entry in annotations]
    if not {*map(type, flags)} <= {int, bool, float}:
        i = next(i for i, flag in enumerate(flags) if type(flag) not in (int, bool, float))
        raise DataError(
            f"annotation {i} of {len(flags)}: `iscrowd` must be 0 or 1, got {shown(flags[i])}"
        )
    return np.array(flags, bool).astype(np.uint8)


def _check_annotation_ids(annotations: Sequence[Any]) -> None:
    ids = [entry.get("id") if isinstance(entry, Mapping) else None for entry in annotations]
    try:
        distinct = len(set(ids)) == len(ids) and all(ids)
    except TypeError:
        distinct = False
    if not distinct:
        logger.warning(
            "annotation ids are missing, zero or not unique; pycocotools would lose these objects, "
            "so they are numbered anew"
        )


def _check_images(
    results: Sequence[Mapping[str, Any]], images: np.ndarray, image_ids: Sequence[Any]
) -> None:
    strange = {results[i]["image_id"] for i in np.flatnonzero(images < 0).tolist()}
    if not strange:
        return
    first = results[int(np.flatnonzero(images < 0)[0])]["image_id"]
    kinds = {type(key).__name__ for key in image_ids}
    advice = "are these the results of another data set or split?"
    if kinds == {"int"} and isinstance(first, str):
        advice = "the ground truth's image ids are numbers, this one is a text"
    elif kinds == {"str"} and not isinstance(first, str):
        advice = "the ground truth's image ids are texts, this one is a number"
    raise DataError(
        f"the results name {len(strange)} images that are not in the ground truth of "
        f"{len(image_ids)} images, e.g. {shown(first)}; {advice}"
    )
