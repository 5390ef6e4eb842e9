"""Reading COCO's JSON, annotations and results, of which only what boxes need is kept."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from ..errors import DataError


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


class _Result(TypedDict, total=False):
    image_id: Any
    category_id: Any
    bbox: Any
    score: Any


class _GroundTruth(TypedDict):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


def read_ground_truth(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The images, categories and annotations of an annotation file.

    Raises:
        DataError: The file cannot be read, or is no COCO instances file.
    """
    data = _read(path, "annotations")
    try:
        return {**msgspec.json.decode(data, type=_GroundTruth)}
    except msgspec.DecodeError:
        content = _parse(path, "annotations", data)
    sections = ("images", "categories", "annotations")
    if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in sections):
        return content
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
    data = _read(path, "results")
    try:
        return msgspec.json.decode(data, type=list[_Result])
    except msgspec.DecodeError:
        content = _parse(path, "results", data)
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


def _read(path: str | os.PathLike[str], what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the {what} '{path}': {error.strerror}") from None


def _parse(path: str | os.PathLike[str], what: str, data: bytes) -> Any:
    # The standard library is slow, but knows byte-order marks and NaN, and tells the broken line.
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the {what} '{path}' are not valid JSON: {error}") from None


def _described(content: Any) -> str:
    if isinstance(content, dict):
        keys = ", ".join(content)
        return f"an object with {keys if len(keys) <= 80 else keys[:77] + '...'}".rstrip()
    if isinstance(content, list):
        return f"a list of {len(content)}"
    return f"only {json.dumps(content)[:80]}"
