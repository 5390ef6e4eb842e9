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
from ...utils.text_file import read_text
from ..detection_dataset import DetectionDataset
from ..image_size import fill_sizes
from ..registries import DATASET_REGISTRY
from .image_files import IMAGE_SUFFIXES, find_images, is_image
from .selection import select_classes
from .voc_xml import VocImage, VocObject, read_voc_xml

_LONGEST_LINE = 1000

logger = logging.getLogger(__name__)


@DATASET_REGISTRY.register
class VocDetection(DetectionDataset):
    """A Pascal VOC tree: ``Annotations``, ``ImageSets/Main/<split>.txt`` and ``JPEGImages``.

    The names in the list of the split are the image ids, as in VOC's own files of results: unlike
    numbers they mean the same image in every split. In a list a name may end as image files do,
    or be followed by the flag of VOC's lists by class, ``000012 -1``; all images are taken.

    Args:
        root: The folder of the tree; a relative path lies under ``$DETLITE_DATASETS``.
        split: The name of a list, e.g. ``train``; empty: all XML files, in the order of their
            names, for trees without ``ImageSets``.
        classes: Names of the classes to keep, in the order of their numbers; None keeps all that
            any XML in ``Annotations`` has, in alphabetical order, so that splits agree.
        one_based: Whether pixels count from 1 and ``xmax`` is the last one inside, as in the
            original VOC; otherwise a box reaches from ``xmin`` to ``xmax``.
        images: The folder of the images, relative to ``root``.
        annotations: The folder of the XML files, relative to ``root``.
        title: The name of the data set in log lines and results; folder and split if empty.
    """

    def __init__(
        self,
        *,
        root: str,
        split: str = "",
        classes: list[str] | None = None,
        one_based: bool = False,
        images: str = "JPEGImages",
        annotations: str = "Annotations",
        title: str = "",
    ) -> None:
        tree = Path(resolve_path(root))
        name = title or "_".join(part for part in (tree.name, split) if part)
        xml_folder, image_folder = tree / annotations, tree / images
        ids = _read_split(tree, split, xml_folder) if split else _all_ids(tree, xml_folder)
        contents = [read_voc_xml(xml_folder / f"{i}.xml") for i in ids]
        selected = select_classes(classes, _known_classes(xml_folder, contents, classes), str(tree))
        class_index = {c: k for k, c in enumerate(selected)}
        places, objects = _of_classes(contents, class_index, name)
        file_names = _find_images(image_folder, ids, f"{split}.txt" if split else str(xml_folder))
        self._xml_places, self._xml_folder = places, annotations
        super().__init__(
            folder=image_folder,
            name=name,
            categories={c: k + 1 for k, c in enumerate(selected)},
            image_ids=ids,
            file_names=file_names,
            sizes=fill_sizes(
                name, image_folder, file_names, [(image.height, image.width) for image in contents]
            ),
            box_images=places[:, 0],
            boxes_xywh=[_to_xywh(item.corners, one_based) for item in objects],
            classes=[class_index[item.name] for item in objects],
            difficult=[item.difficult for item in objects],
        )

    def describe_box(self, i: int, box: int) -> str:
        """The XML file of a box, and which object it is in there, from 1."""
        return f"{self._xml_folder}/{self.image_ids[i]}.xml: object {self._xml_places[box, 1]}"


def _read_split(tree: Path, split: str, xml_folder: Path) -> list[str]:
    path = tree / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        present = ", ".join(sorted(entry.stem for entry in path.parent.glob("*.txt")))
        raise DataError(
            f"there is no list '{path}' of split '{split}'. Splits there: {present or 'none'}; "
            "without the key `split` all XML files are taken.\n"
            "    A relative `root` lies under $DETLITE_DATASETS (datasets/ if it is not set)"
        )
    lines = read_text(path, "list").splitlines()
    if (longest := max(map(len, lines), default=0)) > _LONGEST_LINE:
        raise DataError(
            f"the list '{path}' has a line of {longest} characters; it must be an image's name"
        )
    ids = [_image_id(line.strip(), xml_folder) for line in lines if line.strip()]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"'{path}' lists {len(twice)} images more than once, e.g. '{twice[0]}'")
    if not ids:
        raise DataError(f"the list '{path}' of split '{split}' names no image")
    return ids


def _image_id(line: str, xml_folder: Path) -> str:
    """The id that a line of a list stands for: the first of its readings that has an XML file."""
    line = line.replace("\\", "/")
    name = re.sub(r"\s+(-1|0|1)$", "", line)
    readings = [line, name, *(os.path.splitext(each)[0] for each in (line, name) if is_image(each))]
    for reading in readings:
        try:
            if (xml_folder / f"{reading}.xml").is_file():
                return reading
        except (OSError, ValueError):  # too long for a name, or with a NUL
            pass
    return readings[-1]


def _all_ids(tree: Path, xml_folder: Path) -> list[str]:
    ids = sorted(path.stem for path in xml_folder.glob("*.xml"))
    if not ids:
        raise DataError(
            f"there is no XML file in '{xml_folder}'; `annotations` names another folder of "
            f"'{tree}'.\n    A relative `root` lies under $DETLITE_DATASETS (datasets/ if it is "
            "not set)"
        )
    return ids


def _known_classes(xml_folder: Path, images: list[VocImage], wanted: list[str] | None) -> list[str]:
    known = {item.name for image in images for item in image.objects}
    if wanted is None or not known.issuperset(wanted):
        # One split may lack a class, so that all of them are read before a name is refused.
        for path in sorted(xml_folder.glob("*.xml")):
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
