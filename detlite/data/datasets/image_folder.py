"""Whether the images that annotations name are there."""

import os
from collections import defaultdict
from collections.abc import Sequence

from ...errors import DataError

_MAX_TOLD = 5


def check_images_exist(folder: str, file_names: Sequence[str], source: str) -> None:
    """Look for all images of a data set, by one listing of each folder.

    Args:
        folder: Where the images are.
        file_names: Their names, relative to the folder.
        source: The annotations that name them, for the message.

    Raises:
        DataError: The folder or some of the images are missing.
    """
    if not os.path.isdir(folder):
        raise DataError(
            f"there is no image folder '{folder}'. "
            "Relative paths lie under $DETLITE_DATASETS (datasets/ if it is not set)"
        )
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


def _listing(folder: str) -> set[str]:
    try:
        return {*os.listdir(folder)}
    except OSError:
        return set()
