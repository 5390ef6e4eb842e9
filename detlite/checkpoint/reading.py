"""Reading a file of weights from wherever it is, without running code."""

import os
from typing import Any

from ..errors import CheckpointError
from ..utils.file_io import PATH_MANAGER
from .checksum import missing_checksum, verify_checksum
from .interop import DETLITE
from .safe_unpickle import read_weights_file

VERSION = 2  # of detlite's checkpoints; from 2 on they end in a checksum
_MAX_TOLD = 6


def read_weights(source: str | os.PathLike[str]) -> Any:
    """The content of a file of weights: plain containers, with tensors on the CPU.

    Args:
        source: A path, a URL, or a published name; what is not on this machine is downloaded once.

    Raises:
        DownloadError: It cannot be had.
        CheckpointError: It is broken, its checksum is wrong, or it asks for code to run.
    """
    name = os.path.expanduser(source)
    if "://" not in name:
        return _read_verified(name, name)
    path = PATH_MANAGER.get_local_path(name)
    try:
        return _read_verified(path, name)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}\n    It was downloaded to {path}; delete that file to download it again."
        ) from error


def _read_verified(path: str, name: str) -> Any:
    verified = verify_checksum(path, name)
    content = read_weights_file(path, name)
    if isinstance(content, dict) and content.get("format") == DETLITE:
        version = content.get("version", 1)
        if isinstance(version, int) and version > VERSION:
            raise CheckpointError(
                f"{name} is a checkpoint of version {version}, this detlite reads those up to "
                f"{VERSION}; update it"
            )
        if not verified and version != 1:
            raise missing_checksum(name)
    return content


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of detlite from a path or a URL; tensors come to the CPU.

    Raises:
        CheckpointError: The file is missing, broken, asks for code to run, or is no checkpoint of
            detlite.
    """
    content = read_weights(path)
    if not isinstance(content, dict) or content.get("format") != DETLITE:
        found = ", ".join(map(str, list(content)[:_MAX_TOLD])) if isinstance(content, dict) else ""
        raise CheckpointError(
            f"{path} is no checkpoint of detlite (it holds {found or type(content).__name__})"
        )
    return content
