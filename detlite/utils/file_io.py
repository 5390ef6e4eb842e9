"""Where files are: paths relative to the data root, URLs, and names of published weights."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from iopath.common.file_io import NativePathHandler, PathHandler, PathManager

from ..errors import did_you_mean
from .download import DownloadError, URLHandler

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def published_url(name: str) -> str:
    """The URL of published weights.

    Args:
        name: ``detectron2://...`` or ``mmdet://...`` and a path below the place where each
            publishes, ``torchvision://ResNet50_Weights.IMAGENET1K_V1`` or another member of its
            enums, ``timm://resnet50.a1_in1k``. A web address comes back as it is.

    Raises:
        DownloadError: There is no such scheme, or no such name.
    """
    match = _SCHEME.match(name)
    scheme = match[1] if match else ""
    if scheme in ("http", "https"):
        return name
    if scheme not in _PUBLISHED:
        known = ", ".join(f"{known}://" for known in ("https", "http", *_PUBLISHED))
        raise DownloadError(
            f"'{name}' is of no known kind{did_you_mean(scheme, _PUBLISHED)}\n"
            f"    Known: {known}. Give a local file by its path alone."
        )
    rest = name.removeprefix(f"{scheme}://")
    if not rest:
        raise DownloadError(f"'{name}' names nothing; weights follow behind the slashes")
    return _PUBLISHED[scheme](rest)


def resolve_path(path: str | Path) -> str:
    """The place of a data file: relative paths lie under ``$DETLITE_DATASETS`` (``datasets/``).

    Absolute paths are taken as they are, ``~`` is the home directory, a URL is downloaded once.

    Raises:
        DownloadError: The URL cannot be downloaded, or is of an unknown kind.
    """
    if _SCHEME.match(str(path)):
        return PATH_MANAGER.get_local_path(str(path))
    return os.path.join(os.environ.get("DETLITE_DATASETS", "datasets"), os.path.expanduser(path))


def _torchvision_url(name: str) -> str:
    # Importing torchvision takes seconds, which whoever only asks for a path shall not wait.
    from torchvision.models import get_model_weights, get_weight, list_models

    enums = {enum.__name__: enum for enum in map(get_model_weights, list_models())}
    # __members__ holds the aliases too, such as DEFAULT.
    known = [f"{enum}.{member}" for enum in enums for member in enums[enum].__members__]
    if name not in known:
        meant = name if "." in name else f"{name}_Weights.DEFAULT"
        raise DownloadError(
            f"torchvision has no weights '{name}'{did_you_mean(meant, known)}\n"
            "    They are the members of its enums, as in "
            "torchvision://RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1."
        )
    return str(get_weight(name).url)


def _timm_url(name: str) -> str:
    if not re.fullmatch(r"\w+\.[\w.-]+", name):
        raise DownloadError(
            f"'timm://{name}' is no name of timm's weights\n"
            "    They are a model and a tag, as in timm://resnet50.a1_in1k."
        )
    return f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors"


_PUBLISHED: dict[str, Callable[[str], str]] = {
    "detectron2": "https://dl.fbaipublicfiles.com/detectron2/{}".format,
    "mmdet": "https://download.openmmlab.com/mmdetection/v2.0/{}".format,
    "torchvision": _torchvision_url,
    "timm": _timm_url,
}


class _PublishedHandler(PathHandler):
    """Names of published weights, as their URLs."""

    def _get_supported_prefixes(self) -> list[str]:
        return [f"{scheme}://" for scheme in _PUBLISHED]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return PATH_MANAGER.get_local_path(published_url(path), force, **kwargs)

    def _open(
        self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any
    ) -> IO[str] | IO[bytes]:
        return PATH_MANAGER.open(published_url(path), mode, buffering, **kwargs)


class _LocalHandler(NativePathHandler):
    """Plain paths; iopath would take ``s3://...`` for one."""

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        if _SCHEME.match(os.fspath(path)):
            return published_url(path)  # raises: every known scheme has a handler of its own
        return super()._get_local_path(path, force, **kwargs)


PATH_MANAGER = PathManager()
for _handler in (URLHandler(), _PublishedHandler(), _LocalHandler()):
    PATH_MANAGER.register_handler(_handler)
