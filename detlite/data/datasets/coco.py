"""COCO instances: one json of images, boxes and categories, beside a folder of images."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from ...errors import DataError
from ...utils.file_io import resolve_path
from ...utils.text_file import shown
from ..detection_dataset import DetectionDataset
from ..image_size import fill_sizes
from ..registries import DATASET_REGISTRY
from .coco_json import (
    Annotation,
    Category,
    CocoFile,
    Image,
    check_names_unique,
    plain_ids,
    read_coco_json,
)
from .image_files import find_images
from .selection import select_classes

logger = logging.getLogger(__name__)


@DATASET_REGISTRY.register
class CocoDetection(DetectionDataset):
    """Any data set in COCO's form (https://cocodataset.org/#format-data).

    Classes are numbered from 0 in the order of the category ids, which may have gaps or be texts.
    Images without annotations are kept. What some tools leave out is made up for: boxes from
    polygons or masks, heights and widths from the image files, file names from ``coco_url``. A
    category that only groups others and has no box is left out, unless ``classes`` names it.

    Args:
        json: The annotation file; a relative path lies under ``$DETLITE_DATASETS``.
        images: The folder that the ``file_name`` of each image is relative to.
        classes: Names of the classes to keep, in the order of their numbers; None keeps all.
        title: The name of the data set in log lines and results; the json's name if empty.
    """

    def __init__(
        self, *, json: str, images: str, classes: list[str] | None = None, title: str = ""
    ) -> None:
        path, folder = resolve_path(json), resolve_path(images)
        name = title or Path(path).stem
        content = read_coco_json(path)
        categories = _classes_among(content, classes or (), name)
        check_names_unique(path, categories)
        selected = select_classes(classes, [category.name for category in categories], path)
        file_ids = plain_ids(category.id for category in categories)
        id_of = dict(zip((c.name for c in categories), file_ids, strict=True))
        number = {c: k for k, c in enumerate(selected)}
        class_index = {c.id: number[c.name] for c in categories if c.name in number}
        annotations = _of_classes(content, class_index, name)
        file_names = find_images(folder, _file_names(content.images, folder, path), path)

        image_index = {image.id: i for i, image in enumerate(content.images)}
        boxes = np.array([annotation.bbox for annotation in annotations], np.float64)
        super().__init__(
            folder=folder,
            name=name,
            categories={c: id_of[c] for c in selected},
            image_ids=plain_ids(image.id for image in content.images),
            file_names=file_names,
            sizes=fill_sizes(
                name, folder, file_names, [(i.height, i.width) for i in content.images]
            ),
            box_images=[image_index[annotation.image_id] for annotation in annotations],
            boxes_xywh=boxes,
            classes=[class_index[annotation.category_id] for annotation in annotations],
            areas=_areas(annotations),
            crowd=[bool(annotation.iscrowd) for annotation in annotations],
            annotation_ids=_annotation_ids(annotations),
        )


def _classes_among(content: CocoFile, wanted: Sequence[str], name: str) -> list[Category]:
    """The categories in the order of their ids, without those that only group others.

    Such a group has no box. It is the supercategory of others; or it is category 0 and alone has
    the supercategory "none", as Roboflow writes it.
    """
    found = sorted(content.categories, key=lambda category: _order(category.id))
    used = {annotation.category_id for annotation in content.annotations or []}
    names = Counter(category.name for category in found)
    members: dict[Any, set[Any]] = defaultdict(set)
    for category in found:
        if isinstance(category.supercategory, str):
            members[category.supercategory].add(category.id)
    root = members["none"] if len(found) > 1 and members["none"] == {0} else set()
    groups = [
        category
        for category in found
        if category.id not in used
        and (category.id in root or members.get(category.name, set()) - {category.id})
        and (category.name not in wanted or names[category.name] > 1)
    ]
    for group in groups:
        logger.info(
            "%s: category %r (id %r) is left out, because it has no box and only groups others; "
            "`classes: [...]` with its name keeps it",
            name,
            group.name,
            group.id,
        )
    left_out = {group.id for group in groups}
    return [category for category in found if category.id not in left_out]


def _order(category_id: int | float | str) -> tuple[bool, int | float | str]:
    """Sorts numbers by value, also those written as texts, before other texts."""
    if isinstance(category_id, str) and re.fullmatch("[0-9]{1,400}", category_id):
        return False, int(category_id)
    return isinstance(category_id, str), category_id


def _file_names(images: Sequence[Image], folder: str, path: str) -> list[str]:
    """The file of each image; that of its ``coco_url`` where it has no ``file_name``."""
    names = []
    has_folder: dict[str, bool] = {}
    for number, image in enumerate(images):
        name = image.file_name
        if not name and image.coco_url:
            above, _, name = unquote(image.coco_url).rstrip("/").rpartition("/")
            above = above.rpartition("/")[2]  # such as train2017
            if above not in has_folder:
                has_folder[above] = above != "" and os.path.isdir(os.path.join(folder, above))
            name = f"{above}/{name}" if has_folder[above] else name
        if not name:
            raise DataError(
                f"annotations '{path}', entry {number} of `images` (id {shown(image.id, 40)}) has "
                "no `file_name`, and no `coco_url` in its place"
            )
        names.append(name)
    return names


def _of_classes(content: CocoFile, kept: Container[Any], name: str) -> list[Annotation]:
    if content.annotations is None:
        logger.info("%s: the file has no `annotations`; its images serve for prediction only", name)
        return []
    annotations = [a for a in content.annotations if a.category_id in kept]
    if len(annotations) < len(content.annotations):
        dropped = len(content.annotations) - len(annotations)
        logger.info("%s: %d boxes of other classes are left out", name, dropped)
    return annotations


def _areas(annotations: list[Annotation]) -> list[float]:
    return [a.bbox[2] * a.bbox[3] if a.area is None else a.area for a in annotations]


def _annotation_ids(annotations: list[Annotation]) -> list[int] | None:
    # Ids only serve messages and matching; where they are missing, text or beyond 64 bits, numbers
    # 1..B do.
    ids = [annotation.id for annotation in annotations]
    if any(value is None or isinstance(value, str) or abs(value) >= 2**63 for value in ids):
        return None
    return [int(value) for value in ids]  # type: ignore[arg-type]
