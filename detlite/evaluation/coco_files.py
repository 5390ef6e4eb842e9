"""Reading COCO's JSON, annotations and results, of which only what boxes need is kept."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from ..errors import DataError
from ..utils.text_file import parse_json, read_file, shown
from .coco_masks import box_of_segmentation

logger = logging.getLogger(__name__)


# Dicts of these keys: whatever else a file holds, above all polygons, is skipped while it is read.
# Values may be anything here; `coco_arrays` knows which entry is wrong and says it better.
class _Image(TypedDict, total=False):
    id: Any


class _Category(TypedDict, total=False):
    id: Any
    name: Any


class _Annotation(TypedDict, total=False):
    id: Any
    image_id: Any
    category_id: Any
    bbox: Any
    area: Any
    iscrowd: Any


class _MaskAnnotation(_Annotation, total=False):
    segmentation: Any


class _Result(TypedDict, total=False):
    image_id: Any
    category_id: Any
    bbox: Any
    score: Any


class _GroundTruth(TypedDict):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


class _MaskGroundTruth(TypedDict):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_MaskAnnotation]


def read_ground_truth(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The images, categories and annotations of an annotation file.

    Raises:
        DataError: The file cannot be read, or is no COCO instances file.
    """
    data = read_file(path, "annotations")
    try:
        content: Any = msgspec.json.decode(data, type=_GroundTruth)
        if any(entry.get("bbox") is None for entry in content["annotations"]):
            content = msgspec.json.decode(data, type=_MaskGroundTruth)
    except (msgspec.DecodeError, RecursionError):
        content = parse_json(data, path, "annotations")
    sections = ("images", "categories", "annotations")
    if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in sections):
        _fill_boxes(content["annotations"], path)
        return {**content}
    hint = ""
    if isinstance(content, list):
        hint = "; a list is the form of a results file: are the two files swapped?"
    raise DataError(
        f"'{path}' is not a COCO annotation file: it must be an object with the lists images, "
        f"categories and annotations, it is {_described(content)}{hint}"
    )


def read_results(path: str | os.PathLike[str]) -> Sequence[Mapping[str, Any]]:
    """The detections of a results file.

    Raises:
        DataError: The file cannot be read, or is no COCO results file.
    """
    data = read_file(path, "results")
    try:
        return msgspec.json.decode(data, type=list[_Result])
    except (msgspec.DecodeError, RecursionError):
        content = parse_json(data, path, "results")
    if isinstance(content, list):
        return content
    hint = ""
    if isinstance(content, dict):
        if {"images", "categories"} <= {*content}:
            hint = "; this is the form of an annotation file: are the two files swapped?"
        else:
            lists = [key for key, value in content.items() if isinstance(value, list)]
            hint = f"; write the list under '{lists[0]}' alone into the file" if lists else ""
    raise DataError(
        f"'{path}' is not a COCO results file: it must be a list of objects with image_id, "
        f"category_id, bbox and score, it is {_described(content)}{hint}"
    )


def _fill_boxes(annotations: list[Any], path: str | os.PathLike[str]) -> None:
    """Give annotations without a box that of their polygons or mask."""
    num_made = 0
    for number, entry in enumerate(annotations):
        if not isinstance(entry, dict) or entry.get("bbox") not in (None, []):
            continue
        mask = entry.get("segmentation")
        if mask:
            try:
                entry["bbox"] = [*box_of_segmentation(mask)]
            except ValueError as error:
                raise DataError(
                    f"'{path}', annotation {number} of {len(annotations)} has no `bbox`, and its "
                    f"`segmentation` makes none: {error}, got {shown(mask)}"
                ) from None
            num_made += 1
    if num_made:
        logger.warning(
            "'%s': %d of %d annotations have no `bbox`; their boxes are those of their polygons or "
            "masks",
            path,
            num_made,
            len(annotations),
        )


def _described(content: Any) -> str:
    if isinstance(content, dict):
        keys = ", ".join(content)
        return f"an object with {keys if len(keys) <= 80 else keys[:77] + '...'}".rstrip()
    if isinstance(content, list):
        return f"a list of {len(content)}"
    return f"only {shown(content, 80)}"
