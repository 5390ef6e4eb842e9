"""Which image files a folder has, and whether those that annotations name are there."""

import logging
import os
from collections import defaultdict
from collections.abc import Sequence

from ...errors import DataError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
_MAX_TOLD = 5

logger = logging.getLogger(__name__)


class ImageListing:
    """Finds image files by their suffixes, without a look at any of them; hidden ones are none.

    Args:
        folder: Names are relative to it.

    Attributes:
        skipped: Names of what else lies in the folders that were listed.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.skipped: list[str] = []

    def under(self, subfolder: str = "") -> list[str]:
        """The images in a folder and all folders in it, in torchvision's order.

        Folders come before what is in them, each with its files in the order of their names.

        Raises:
            DataError: A folder cannot be listed.
        """
        top = os.path.join(self.folder, subfolder)
        found: list[str] = []
        for place, folders, files in sorted(os.walk(top, onerror=_refuse, followlinks=True)):
            inside = os.path.relpath(place, top)
            if any(part.startswith(".") for part in inside.split(os.sep) if part != "."):
                continue
            prefix = os.path.normpath(os.path.join(subfolder, inside))
            names = [name if prefix == "." else f"{prefix}/{name}" for name in sorted(files)]
            found += [name for name in names if is_image(name)]
            self.skipped += [name for name in names if not is_image(name)]
            self.skipped += [f"{prefix}/{name}" for name in folders if name.startswith(".")]
        return found

    def tell(self, title: str) -> None:
        """Log what was skipped, if anything was."""
        if self.skipped:
            logger.info(
                "%s: %d files and folders that are hidden or no images are skipped, such as '%s'",
                title,
                len(self.skipped),
                self.skipped[0],
            )


def _refuse(error: OSError) -> None:
    raise DataError(f"cannot list the folder '{error.filename}': {error.strerror}")


def is_image(name: str) -> bool:
    """Whether a file is an image by its name, and not hidden."""
    base = os.path.basename(name)
    return os.path.splitext(base)[1].lower() in IMAGE_SUFFIXES and not base.startswith(".")


def subfolders(folder: str) -> list[str]:
    """The folders in a folder that are not hidden, sorted.

    Raises:
        DataError: There is no such folder.
    """
    _check_folder(folder)
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def check_images_exist(folder: str, file_names: Sequence[str], source: str) -> None:
    """Look for all images of a data set, by one listing of each folder.

    Args:
        folder: Where the images are.
        file_names: Their names, relative to the folder.
        source: The annotations that name them, for the message.

    Raises:
        DataError: The folder or some of the images are missing.
    """
    _check_folder(folder)
    by_folder: dict[str, list[str]] = defaultdict(list)
    for name in file_names:
        by_folder[os.path.dirname(name)].append(name)
    missing: list[str] = []
    for subfolder, names in by_folder.items():
        present = _listing(os.path.join(folder, subfolder))
        missing += [name for name in names if os.path.basename(name) not in present]
    if missing:
        more = f" and {len(missing) - _MAX_TOLD} more" if len(missing) > _MAX_TOLD else ""
        raise DataError(
            f"{len(missing)} of the {len(file_names)} images that '{source}' names are not in "
            f"'{folder}': {', '.join(missing[:_MAX_TOLD])}{more}"
        )


def _check_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        raise DataError(
            f"there is no image folder '{folder}'. "
            "Relative paths lie under $DETLITE_DATASETS (datasets/ if it is not set)"
        )


def _listing(folder: str) -> set[str]:
    try:
        return {*os.listdir(folder)}
    except OSError:
        return set()
