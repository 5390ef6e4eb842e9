"""ImageNet as it is given out (Russakovsky et al. 2014, https://arxiv.org/abs/1409.0575)."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...utils.file_io import resolve_path
from ..classification_dataset import ClassificationDataset
from ..registries import DATASET_REGISTRY
from .image_files import ImageListing, subfolders
from .selection import select_classes

_WORDS = "LOC_synset_mapping.txt"
_SOLUTION = "LOC_val_solution.csv"


@DATASET_REGISTRY.register
class ImageNet(ClassificationDataset):
    """ILSVRC 2012: ``train/n01440764/*.JPEG``, and ``val`` in such folders too or flat.

    Classes are numbered in the order of their WordNet ids, as everywhere. Their names are the
    words of ``LOC_synset_mapping.txt``, which is among the files on Kaggle, or the ids where it
    is not there. A flat ``val`` needs ``LOC_val_solution.csv`` from there.

    Args:
        folder: Where ``train`` and ``val`` are, ``ILSVRC/Data/CLS-LOC`` in Kaggle's archive; a
            relative path lies under ``$DETLITE_DATASETS``.
        split: The folder in it.
        annotations: Folder of the two ``LOC_`` files; ``folder`` if empty.
        classes: WordNet ids of the classes to keep, in the order of their numbers; None keeps all.
        title: The name of the data set in log lines and results; ``imagenet_<split>`` if empty.
    """

    def __init__(
        self,
        *,
        folder: str,
        split: str = "train",
        annotations: str = "",
        classes: list[str] | None = None,
        title: str = "",
    ) -> None:
        top = resolve_path(folder)
        beside = resolve_path(annotations) if annotations else top
        name = title or f"imagenet_{split}"
        place = os.path.join(top, split)
        words = _read_words(os.path.join(beside, _WORDS))
        folders = subfolders(place)
        known = _known_ids(top, folders, list(words))
        selected = select_classes(classes, known, place)
        listing = ImageListing(place)
        if folders:
            there = {*folders}
            by_class = {wnid: listing.under(wnid) for wnid in selected if wnid in there}
            file_names = [image for images in by_class.values() for image in images]
            ids = [wnid for wnid, images in by_class.items() for _ in images]
        else:
            file_names = listing.under()
            ids = _read_solution(os.path.join(beside, _SOLUTION), file_names, place)
            kept = [i for i, wnid in enumerate(ids) if wnid in {*selected}]
            file_names, ids = [file_names[i] for i in kept], [ids[i] for i in kept]
        listing.tell(name)
        _check_filled(selected, ids, place)
        index = {wnid: k for k, wnid in enumerate(selected)}
        super().__init__(
            name=name,
            class_names=_class_names(selected, words),
            folder=place,
            file_names=file_names,
            classes=np.fromiter((index[wnid] for wnid in ids), np.int64, len(ids)),
        )


def _known_ids(top: str, folders: list[str], words: list[str]) -> list[str]:
    """The ids of all classes; those of ``train`` first of all, so that the splits agree."""
    train = os.path.join(top, "train")
    if os.path.isdir(train) and (found := subfolders(train)):
        return found
    return folders or sorted(words)


def _read_words(path: str) -> dict[str, str]:
    """The words of each id; none where there is no such file."""
    if not os.path.isfile(path):
        return {}
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(" ") for line in lines if line.strip())
    return {wnid: words.strip() for wnid, _, words in pairs}


def _class_names(ids: Sequence[str], words: dict[str, str]) -> list[str]:
    names = [words.get(wnid, wnid) for wnid in ids]
    counts = Counter(names)
    # Two classes are called "crane".
    return [
        f"{name} ({wnid})" if counts[name] > 1 else name
        for name, wnid in zip(names, ids, strict=True)
    ]


def _read_solution(path: str, file_names: Sequence[str], place: str) -> list[str]:
    """The id of each image of a flat folder."""
    if not os.path.isfile(path):
        raise DataError(
            f"'{place}' has no class folders, and there is no '{path}' that says the classes of "
            "its images; sort them into class folders, or name the folder of that file in "
            "`annotations`"
        )
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) > 1]
    by_image = {row[0]: row[1].partition(" ")[0] for row in rows}
    missing = [name for name in file_names if Path(name).stem not in by_image]
    if missing:
        raise DataError(
            f"'{path}' does not say the classes of {len(missing)} of the {len(file_names)} images "
            f"in '{place}', such as '{missing[0]}'"
        )
    return [by_image[Path(name).stem] for name in file_names]


def _check_filled(selected: Sequence[str], ids: Sequence[str], place: str) -> None:
    empty = sorted({*selected} - {*ids})
    if empty:
        raise DataError(
            f"'{place}' has no image of {len(empty)} of the {len(selected)} classes, such as "
            f"'{empty[0]}'; complete it, or choose `classes`"
        )
