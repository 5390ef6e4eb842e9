"""Where files are: paths relative to the data root, and URLs."""

import os
from pathlib import Path

from iopath.common.file_io import HTTPURLHandler, PathManager

PATH_MANAGER = PathManager()
PATH_MANAGER.register_handler(HTTPURLHandler())


def resolve_path(path: str | Path) -> str:
    """The place of a data file: relative paths lie under ``$DETLITE_DATASETS`` (``datasets/``).

    Absolute paths are taken as they are, ``~`` is the home directory, a URL is downloaded once.
    """
    if str(path).startswith(("http://", "https://")):
        return PATH_MANAGER.get_local_path(str(path))
    return os.path.join(os.environ.get("DETLITE_DATASETS", "datasets"), os.path.expanduser(path))
