"""Pascal VOC: one XML of boxes an image, and lists of the images of each split."""

import logging
import os
import re
from collections import Counter
from collections.abc import Container
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...utils.file_io import resolve_path
from ...utils.text_file import decode_text
from ..detection_dataset import DetectionDataset
from ..registries import DATASET_REGISTRY
from .image_files import IMAGE_SUFFIXES, find_images
from .selection import select_classes
from .voc_xml import VocImage, VocObject, read_voc_xml

logger = logging.getLogger(__name__)


@DATASET_REGISTRY.register
class VocDetection(DetectionDataset):
    """A Pascal VOC tree: ``Annotations``, ``ImageSets/Main/<split>.txt`` and ``JPEGImages``.

    The names in the list of the split are the image ids, as in VOC's own files of results: unlike
    numbers they mean the same image in every split.

    Args:
        root: The folder of the tree; a relative path lies under ``$DETLITE_DATASETS``.
        split: The name of a list, e.g. ``train``; None takes every XML. A line is an image's name,
            with or without the suffix of its file; a flag -1, 0 or 1 behind it is passed over.
        classes: Names of the classes to keep, in the order of their numbers; None keeps all that
            any XML in ``Annotations`` has, in alphabetical order, so that splits agree.
        one_based: Whether pixels count from 1 and ``xmax`` is the last one inside, as in the
            original VOC; otherwise a box reaches from ``xmin`` to ``xmax``.
        images: The folder of the images, relative to ``root``.
        title: The name of the data set in log lines and results; folder and split if empty.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str | None = None,
        classes: list[str] | None = None,
        one_based: bool = False,
        images: str = "JPEGImages",
        title: str = "",
    ) -> None:
        tree = Path(resolve_path(root))
        name = title or (f"{tree.name}_{split}" if split else tree.name)
        ids = _read_split(tree, split) if split else _all_xmls(tree)
        annotated = [read_voc_xml(tree / "Annotations" / f"{i}.xml") for i in ids]
        selected = select_classes(classes, _known_classes(tree, annotated, classes), str(tree))
        class_index = {c: k for k, c in enumerate(selected)}
        places, objects = _of_classes(annotated, class_index, name)
        self._xml_places = places
        super().__init__(
            folder=tree / images,
            name=name,
            categories={c: k + 1 for k, c in enumerate(selected)},
            image_ids=ids,
            file_names=_find_images(tree / images, ids, f"{split}.txt" if split else "Annotations"),
            sizes=[(image.height, image.width) for image in annotated],
            box_images=places[:, 0],
            boxes_xywh=[_to_xywh(item.corners, one_based) for item in objects],
            classes=[class_index[item.name] for item in objects],
            difficult=[item.difficult for item in objects],
        )

    def describe_box(self, i: int, box: int) -> str:
        """The XML file of a box, and which object it is in there, from 1."""
        return f"Annotations/{self.image_ids[i]}.xml: object {self._xml_places[box, 1]}"


def _read_split(tree: Path, split: str) -> list[str]:
    path = tree / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = decode_text(path.read_bytes(), path, "names").splitlines()
    except OSError as error:
        present = ", ".join(sorted(entry.stem for entry in path.parent.glob("*.txt")))
        raise DataError(
            f"cannot read the list '{path}' of split '{split}': {error.strerror}. "
            f"Splits there: {present or 'none; leave `split` out to take every XML'}. "
            "A relative `root` lies under $DETLITE_DATASETS (datasets/ if it is not set)"
        ) from None
    ids = [_image_name(tree, line.strip()) for line in lines if line.strip()]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"'{path}' lists {len(twice)} images more than once, e.g. '{twice[0]}'")
    return ids


def _image_name(tree: Path, line: str) -> str:
    """The name of an image in a line of a list, without a flag and the suffix of the file."""
    if (tree / "Annotations" / f"{line}.xml").exists():
        return line
    name = re.sub(r"\s+(-1|0|1)$", "", line)
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in {*IMAGE_SUFFIXES, ".xml"} else name


def _all_xmls(tree: Path) -> list[str]:
    names = sorted(path.stem for path in (tree / "Annotations").glob("*.xml"))
    if not names:
        raise DataError(
            f"there is no XML in '{tree / 'Annotations'}'. "
            "A relative `root` lies under $DETLITE_DATASETS (datasets/ if it is not set)"
        )
    return names


def _known_classes(tree: Path, images: list[VocImage], wanted: list[str] | None) -> list[str]:
    known = {item.name for image in images for item in image.objects}
    if wanted is None or not known.issuperset(wanted):
        # One split may lack a class, so that all of them are read before a name is refused.
        for path in sorted((tree / "Annotations").glob("*.xml")):
            known.update(item.name for item in read_voc_xml(path).objects)
    return sorted(known)


def _of_classes(
    images: list[VocImage], kept: Container[str], name: str
) -> tuple[np.ndarray, list[VocObject]]:
    """The objects of kept classes, each with its image from 0 and its place in the XML from 1."""
    places, objects = [], []
    for i, image in enumerate(images):
        for number, item in enumerate(image.objects, start=1):
            if item.name in kept:
                places.append((i, number))
                objects.append(item)
    dropped = sum(len(image.objects) for image in images) - len(objects)
    if dropped:
        logger.info("%s: %d boxes of other classes are left out", name, dropped)
    return np.array(places, np.int32).reshape(-1, 2), objects


def _to_xywh(corners: tuple[float, float, float, float], one_based: bool) -> tuple[float, ...]:
    xmin, ymin, xmax, ymax = corners
    if one_based:
        xmin, ymin = xmin - 1, ymin - 1
    return xmin, ymin, xmax - xmin, ymax - ymin


def _find_images(folder: Path, ids: list[str], source: str) -> list[str]:
    """The image file of each id: the one of that name, whatever its suffix."""
    present = {
        entry.stem: entry.name
        for entry in (folder.iterdir() if folder.is_dir() else ())
        if entry.suffix.lower() in IMAGE_SUFFIXES
    }
    names = [present.get(i, f"{i}.jpg") for i in ids]
    return find_images(str(folder), names, source)
