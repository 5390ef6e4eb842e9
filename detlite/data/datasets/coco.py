"""COCO instances: one json of images, boxes and categories, beside a folder of images."""

import logging
from pathlib import Path

import numpy as np

from ...utils.file_io import resolve_path
from ..detection_dataset import DetectionDataset
from ..registries import DATASET_REGISTRY
from .coco_json import Annotation, CocoFile, read_coco_json
from .image_files import check_images_exist
from .selection import select_classes

logger = logging.getLogger(__name__)


@DATASET_REGISTRY.register
class CocoDetection(DetectionDataset):
    """Any data set in COCO's form (https://cocodataset.org/#format-data).

    Classes are numbered from 0 in the order of the category ids, which may have gaps. Images
    without annotations are kept.

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
        found = sorted(content.categories, key=lambda category: category.id)
        categories = {category.name: int(category.id) for category in found}
        selected = select_classes(classes, list(categories), path)
        annotations = _of_classes(content, [categories[c] for c in selected], name)
        check_images_exist(folder, [image.file_name for image in content.images], path)

        image_index = {image.id: i for i, image in enumerate(content.images)}
        class_index = {categories[c]: k for k, c in enumerate(selected)}
        boxes = np.array([annotation.bbox for annotation in annotations], np.float64)
        super().__init__(
            folder=folder,
            name=name,
            categories={c: categories[c] for c in selected},
            image_ids=[i.id if isinstance(i.id, str) else int(i.id) for i in content.images],
            file_names=[image.file_name for image in content.images],
            sizes=[(image.height, image.width) for image in content.images],
            box_images=[image_index[annotation.image_id] for annotation in annotations],
            boxes_xywh=boxes,
            classes=[class_index[int(annotation.category_id)] for annotation in annotations],
            areas=_areas(annotations),
            crowd=[bool(annotation.iscrowd) for annotation in annotations],
            annotation_ids=_annotation_ids(annotations),
        )


def _of_classes(content: CocoFile, kept_ids: list[int], name: str) -> list[Annotation]:
    kept = {*kept_ids}
    annotations = [a for a in content.annotations if a.category_id in kept]
    if len(annotations) < len(content.annotations):
        dropped = len(content.annotations) - len(annotations)
        logger.info("%s: %d boxes of other classes are left out", name, dropped)
    return annotations


def _areas(annotations: list[Annotation]) -> list[float]:
    return [a.bbox[2] * a.bbox[3] if a.area is None else a.area for a in annotations]


def _annotation_ids(annotations: list[Annotation]) -> list[int] | None:
    # Ids only serve messages and matching; where they are missing or text, numbers 1..B do.
    ids = [annotation.id for annotation in annotations]
    if any(value is None or isinstance(value, str) for value in ids):
        return None
    return [int(value) for value in ids]  # type: ignore[arg-type]
