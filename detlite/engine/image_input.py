"""What a predictor takes for images: files, folders, arrays, tensors and Pillow's images."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data import ImageReader
from ..data.datasets.image_files import ImageListing
from ..errors import DataError

ImageLike = np.ndarray | Tensor | str | Path | Image.Image

_RIGHT = (
    "an image is a path, a Pillow image, a uint8 RGB array (H, W, 3) or tensor (3, H, W), or the "
    "same with 1 or 4 channels"
)


def images_of(images: Any) -> Iterable[ImageLike]:
    """Several images: those of a folder in the order of their names, or what can be iterated over.

    Raises:
        DataError: There is no image in the folder.
        ValueError: There is none, or something else was given.
    """
    if isinstance(images, str | Path):
        names = ImageListing(str(images)).under()
        if not names:
            raise DataError(f"there is no image in the folder '{images}'")
        return [Path(images) / name for name in names]
    if not isinstance(images, Iterable) or isinstance(images, bytes | dict):
        raise ValueError(f"{_RIGHT}; got {type(images).__name__}")
    return images


def is_one_image(images: Any) -> bool:
    """Whether this is one image, and not several."""
    if isinstance(images, str | Path):
        return images == "" or not Path(images).is_dir()  # Path("") is the present folder
    return isinstance(images, ImageLike)


def as_image_tensor(image: ImageLike, reader: ImageReader | None = None) -> Tensor:
    """An image of any form as a uint8 RGB tensor (3, H, W); alpha is dropped, gray repeated.

    Raises:
        DataError: A file cannot be read.
        ValueError: This is no image, or one without pixels.
    """
    reader = reader or ImageReader()
    if isinstance(image, str | Path):
        return reader.read(image)
    if isinstance(image, Image.Image):
        if not image.width or not image.height:
            raise ValueError(f"{_RIGHT}; got a Pillow image of {image.width} x {image.height}")
        return reader.convert(image)
    if not isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"{_RIGHT}; got {type(image).__name__}")
    pixels = image.cpu() if isinstance(image, Tensor) else image
    if pixels.ndim == 2:
        pixels = pixels[None] if isinstance(pixels, Tensor) else pixels[:, :, None]
    axis = 0 if isinstance(pixels, Tensor) else 2
    if str(pixels.dtype).removeprefix("torch.") != "uint8":
        raise ValueError(f"{_RIGHT}; got {_told(image)}; scale it to 0..255 and convert it")
    if pixels.ndim != 3 or pixels.shape[axis] not in (1, 3, 4) or 0 in pixels.shape:
        several = "; a list of them for several" if pixels.ndim == 4 else ""
        raise ValueError(f"{_RIGHT}{several}; got {_told(image)}")
    if not isinstance(pixels, Tensor):
        # np.asarray of a Pillow image cannot be written to, which torch warns of.
        pixels = np.require(pixels, requirements=["C", "W"])
        pixels = torch.from_numpy(pixels).permute(2, 0, 1)
    return pixels.expand(3, -1, -1) if pixels.shape[0] == 1 else pixels[:3]


def _told(image: np.ndarray | Tensor) -> str:
    return f"{tuple(image.shape)} {image.dtype}"
