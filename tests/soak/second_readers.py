"""What annotation files mean, read a second time by other and simpler means.

Each function gives None where the second reader cannot say; then only the limits are checked.
"""

import contextlib
import io
import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Boxes = list[tuple[str, list[float] | None]]
"""Of an image: class and x1, y1, x2, y2 within the image; None for a box of a mask."""


def coco_boxes(data: bytes, size: tuple[int, int]) -> list[Boxes] | None:
    """The boxes to train on in each image of a COCO file; images have one (height, width)."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    names = {category["id"]: category["name"] for category in document["categories"]}
    images: dict[Any, Boxes] = {image["id"]: [] for image in document["images"]}
    for entry in document.get("annotations") or []:
        box = entry.get("bbox") or None
        clipped = None
        if box is not None:
            x, y, w, h = map(float, box)
            clipped = _clipped([x, y, x + w, y + h], size)
        if not entry.get("iscrowd") and (box is None or clipped is not None):
            images[entry["image_id"]].append((names[entry["category_id"]], clipped))
    return list(images.values())


def voc_boxes(data: bytes, size: tuple[int, int]) -> Boxes | None:
    """The boxes of a VOC file."""
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        return None
    boxes: Boxes = []
    for entry in root.findall("object"):
        corners = [
            float(entry.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")
        ]
        clipped = _clipped(corners, size)
        if clipped is not None:
            boxes.append(((entry.findtext("name") or "").strip(), clipped))
    return boxes


def list_entries(data: bytes) -> list[tuple[str, str | None]]:
    """Path and class of each line of an ImageFolder's list."""
    entries: list[tuple[str, str | None]] = []
    for line in map(str.strip, data.decode(json.detect_encoding(data)).splitlines()):
        separator = "\t" if "\t" in line else " "
        name, _, label = line.rpartition(separator)
        if line and separator == " " and line.lower().endswith((".png", ".jpg")):
            entries.append((line, None))
        elif line:
            entries.append((name.strip(), label.strip()))
    return entries


def pycocotools_numbers(truth: Any, results: Any) -> list[float] | None:
    """The twelve numbers of pycocotools, where its reading is beyond doubt."""
    ids = [entry.get("id") for entry in truth["annotations"]]
    if not results or not all(type(i) is int and i > 0 for i in ids) or len({*ids}) < len(ids):
        return None  # it takes id 0 for no match, and one of two boxes of an id for both
    api = COCO()
    try:
        for entry in truth["annotations"]:  # pycocotools needs both
            _, _, w, h = entry["bbox"]
            entry["area"] = w * h if entry.get("area") is None else entry["area"]
            entry["iscrowd"] = entry.get("iscrowd") or 0
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            api.dataset = truth
            api.createIndex()
            evaluation = COCOeval(api, api.loadRes(results), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
    except Exception:  # whatever it is, it has no number
        return None
    return [float("nan") if value == -1 else 100 * value for value in evaluation.stats]


def _clipped(corners: Any, size: tuple[int, int]) -> list[float] | None:
    """Corners within the image; None where nothing is left."""
    if not np.isfinite(corners).all():
        return None
    height, width = size
    x1, x2 = (float(np.clip(value, 0, width)) for value in (corners[0], corners[2]))
    y1, y2 = (float(np.clip(value, 0, height)) for value in (corners[1], corners[3]))
    # As float32, in which data sets keep them.
    return [x1, y1, x2, y2] if np.float32(x2) > x1 and np.float32(y2) > y1 else None
