"""Images in folders of their classes, or in a list with their classes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...utils.file_io import resolve_path
from ...utils.text_file import read_text
from ..class_names import MAX_CLASSES
from ..classification_dataset import ClassificationDataset
from ..registries import DATASET_REGISTRY
from .image_files import ImageListing, find_images, is_image, subfolders
from .selection import select_classes

logger = logging.getLogger(__name__)

_MAX_TOLD = 5


@DATASET_REGISTRY.register
class ImageFolder(ClassificationDataset):
    """A folder of class folders (torchvision's layout), or a list of the files in a folder.

    Class folders are numbered in the order of their names; images may lie in folders within them.
    Files that are hidden or no images by their suffix are skipped and counted in the log.

    A list has one image a line: its path below ``folder``, a tab or a blank, and its class, a name
    or a number from 0. A line that is a path alone, which ends as image files do, takes the first
    folder of the path for the class, and the classes are then those of the class folders. Paths
    may hold blanks; classes with blanks need the tab.

    Args:
        folder: Where the images are; a relative path lies under ``$DETLITE_DATASETS``.
        list_file: The list; None: all images in the class folders.
        classes: Names of the classes, in the order of their numbers; images of others are left
            out. None: all of them in alphabetical order, numbers in a list as they are.
        unlabelled: Take all images, in folders of any depth, as one class "image", for pretraining
            without labels. A list's classes are not read then.
        title: The name of the data set in log lines and results; that of the list or the folder
            if empty.
    """

    def __init__(
        self,
        *,
        folder: str,
        list_file: str | None = None,
        classes: list[str] | None = None,
        unlabelled: bool = False,
        title: str = "",
    ) -> None:
        top = resolve_path(folder)
        path = None if list_file is None else resolve_path(list_file)
        name = title or (Path(top).name if path is None else Path(path).stem)
        if unlabelled and classes is not None:
            raise DataError("unlabelled images have no `classes`; remove one of the two keys")
        if path is None:
            names, labels = _from_folders(top, name, unlabelled)
        else:
            names, labels = _from_list(path, unlabelled)
            names = find_images(top, names, path)
        if unlabelled:
            selected = ["image"]
        elif path is not None and all(label is not None and label.isdecimal() for label in labels):
            selected, labels = _numbered(names, labels, classes, path)  # type: ignore[arg-type]
        else:
            selected, labels = _named(top, path, names, labels, classes)
        index = {label: k for k, label in enumerate(selected)}
        kept = [i for i, label in enumerate(labels) if label in index]
        if len(kept) < len(names):
            logger.info("%s: %d images of other classes left out", name, len(names) - len(kept))
        super().__init__(
            name=name,
            class_names=selected,
            folder=top,
            file_names=[names[i] for i in kept],
            classes=np.array([index[labels[i]] for i in kept], np.int64),  # type: ignore[index]
        )


def _from_folders(
    folder: str, name: str, unlabelled: bool
) -> tuple[list[str], Sequence[str | None]]:
    listing = ImageListing(folder)
    known = subfolders(folder)
    if unlabelled:
        names = listing.under()
        listing.tell(name)
        if not names:
            raise DataError(f"there is no image under '{folder}'")
        return names, ["image"] * len(names)
    if not known:
        raise DataError(
            f"'{folder}' has no class folders. Put the images into folders named by their classes, "
            "or give `list_file`, or `unlabelled: true` for images without classes"
        )
    by_class = {label: listing.under(label) for label in known}
    listing.tell(name)
    names = [image for images in by_class.values() for image in images]
    return names, [label for label, images in by_class.items() for _ in images]


def _from_list(path: str, unlabelled: bool) -> tuple[list[str], Sequence[str | None]]:
    """The paths and the classes in a list; None where a line has no class."""
    lines = read_text(path, "list").splitlines()
    names: list[str] = []
    labels: list[str | None] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, label = _split(line.strip())
        if not name:
            raise DataError(
                f"'{path}', line {number} must be a path and a class, got '{_cut(line.strip())}'"
            )
        names.append(name.removeprefix("./"))
        labels.append(label)
    if not names:
        raise DataError(f"the list '{path}' names no image")
    return names, ["image"] * len(names) if unlabelled else labels


def _split(line: str) -> tuple[str, str | None]:
    if "\t" in line:
        name, _, label = line.rpartition("\t")
        return name.strip(), label.strip()
    if is_image(line):
        return line, None
    name, _, label = line.rpartition(" ")
    return name.strip(), label


def _numbered(
    images: Sequence[str], labels: Sequence[str], classes: list[str] | None, path: str
) -> tuple[list[str], list[str]]:
    limit = MAX_CLASSES if classes is None else len(classes)
    for label in labels:
        # Compared by its digits first: of a number of thousands of digits Python makes no int.
        if len(label.lstrip("0")) > len(str(limit)) or int(label) >= limit:
            why = f"at most {limit} classes are supported"
            if classes is not None:
                why = f"`classes` names {limit}"
            raise DataError(
                f"'{path}' has class number {_cut(label)}, but {why}; numbers count from 0. Names "
                "of classes need not be numbers"
            )
    numbers = [int(label) for label in labels]
    names = classes if classes is not None else [str(k) for k in range(max(numbers) + 1)]
    selected = select_classes(names, names, path)
    return selected, [names[number] for number in numbers]


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _named(
    folder: str,
    path: str | None,
    names: list[str],
    labels: Sequence[str | None],
    classes: list[str] | None,
) -> tuple[list[str], list[str]]:
    by_folder = path is None or any(label is None for label in labels)
    found = [
        label if label is not None else name.partition("/")[0] if "/" in name else ""
        for name, label in zip(names, labels, strict=True)
    ]
    if "" in found:
        raise DataError(
            f"'{path}' gives no class for '{names[found.index('')]}', which lies in no class "
            "folder; write `path class` in each line"
        )
    # The class folders, and not those of this list alone, so that the lists of splits agree.
    known = sorted({*found, *(subfolders(folder) if by_folder else ())})
    selected = select_classes(classes, known, path or folder)
    if path is None and (empty := sorted({*selected} - {*found})):
        raise DataError(
            f"{len(empty)} class folders in '{folder}' have no image: "
            f"{', '.join(empty[:_MAX_TOLD])}. Remove them, or choose others with `classes`"
        )
    return selected, found
