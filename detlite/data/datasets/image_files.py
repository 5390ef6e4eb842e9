"""Which image files a folder has, and whether those that annotations name are there."""

import logging
import os
from collections.abc import Sequence
from urllib.parse import unquote

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


def find_images(folder: str, file_names: Sequence[str], source: str) -> list[str]:
    """Look for all images of a data set, by one listing of each folder.

    A backslash separates folders as a slash does, unless a file has it in its name.

    Args:
        folder: Where the images are.
        file_names: Their names, relative to the folder.
        source: The annotations that name them, for the message.

    Returns:
        The names, with slashes.

    Raises:
        DataError: The folder or some of the images are missing.
    """
    _check_folder(folder)
    listing = _Listing(folder)
    names = [
        name if "\\" not in name or name in listing else name.replace("\\", "/")
        for name in file_names
    ]
    missing = [name for name in names if name not in listing]
    if missing:
        more = f" and {len(missing) - _MAX_TOLD} more" if len(missing) > _MAX_TOLD else ""
        hint = listing.suggestion(missing)
        raise DataError(
            f"{len(missing)} of the {len(names)} images that '{source}' names are not in "
            f"'{folder}': {', '.join(map(_short, missing[:_MAX_TOLD]))}{more}"
            + (f"\n    {hint}" if hint else "")
        )
    return names


class _Listing:
    """The files below a folder, listed where somebody asks for them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._present: dict[str, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        subfolder, base = os.path.split(name)
        return base in self.names(subfolder)

    def names(self, subfolder: str) -> set[str]:
        """The names in a folder; none where it cannot be listed."""
        if subfolder not in self._present:
            try:
                found = {*os.listdir(os.path.join(self.folder, subfolder))}
            except (OSError, ValueError):  # a ValueError of a NUL or a lone surrogate
                found = set()
            self._present[subfolder] = found
        return self._present[subfolder]

    def suggestion(self, missing: Sequence[str]) -> str:
        """Under which other names missing files are there, if they are."""
        here = sorted(self.names(""))
        folders = [name for name in here[:1000] if os.path.isdir(os.path.join(self.folder, name))]
        for name in missing[:100]:
            # As it is, without its own folders, in a folder of the folder.
            for plain, how in ((name, ""), (unquote(name), "without URL quoting")):
                parts = plain.split("/")
                places = ["/".join(parts[k:]) for k in range(len(parts))]
                places += [f"{folder}/{parts[-1]}" for folder in folders]
                for place in places:
                    if (found := self._alike(place)) and found != name:
                        return self._told(name, found, how)
        return ""

    def _alike(self, name: str) -> str | None:
        """The file of this name, or of the same in other cases."""
        if name in self:
            return name
        subfolder, base = os.path.split(name)
        same = sorted(n for n in self.names(subfolder) if n.casefold() == base.casefold())
        return os.path.join(subfolder, same[0]) if same else None

    def _told(self, name: str, found: str, how: str) -> str:
        asked, there = name.rpartition("/"), found.rpartition("/")
        differences = [how] if how else []
        if asked[0] != there[0]:
            differences.append("in another folder; does `images` name the right one?")
        elif not how:
            differences.append("in other letters; upper and lower case differ here")
        return f"{_short(name)} is there as '{_short(found)}', {', '.join(differences)}"


def _short(name: str) -> str:
    printable = name if name.isprintable() else repr(name)[1:-1]
    return printable if len(printable) <= 200 else f"{printable[:197]}..."


def _check_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        raise DataError(
            f"there is no image folder '{folder}'. "
            "Relative paths lie under $DETLITE_DATASETS (datasets/ if it is not set)"
        )
