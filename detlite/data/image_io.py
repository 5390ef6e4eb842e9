"""Reading an image file into a tensor.

JPEG goes through OpenCV, every other format through Pillow. torchvision's decoder, which is as
fast, is deprecated since 0.29; on JPEG files the three agree to the bit.
"""

import errno
import io
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import DataError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
# What the file system says for good; any other error may come from a network or a disk at work.
_LASTING = {
    errno.EACCES,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
}


class PassingReadError(DataError):
    """A file could not be read, by what may pass: an I/O error, a file that is still written."""


def read_image(path: str | Path) -> Tensor:
    """Read an image, turned upright by its EXIF orientation.

    Colour is RGB whatever the file holds: grey is repeated, a palette looked up, CMYK converted,
    16 bits scaled to 8, an alpha channel dropped.

    Returns:
        (3, H, W) uint8 RGB. The memory lies as (H, W, 3), as decoders write it.

    Raises:
        DataError: The file is missing or not an image.
        PassingReadError: It is empty, truncated, or the file system failed; another attempt may
            succeed.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no image file '{path}'") from None
    except OSError as error:
        kind = PassingReadError if may_pass(error) else DataError
        raise kind(f"cannot read image file '{path}': {error.strerror or error}") from None
    if not data:
        raise PassingReadError(f"image file '{path}' is empty (0 bytes)")
    pixels = _decode_jpeg(data)
    if pixels is None:
        pixels = _decode_any(data, path)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def may_pass(error: Exception) -> bool:
    """Whether another attempt to read may succeed after this error."""
    if isinstance(error, OSError):
        return error.errno not in _LASTING
    return isinstance(error, PassingReadError)


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    # Some versions of OpenCV turn a file cut short into a grey image; Pillow tells of it.
    if not (data.startswith(_JPEG_START) and data.endswith(_JPEG_END)):
        return None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _decode_any(data: bytes, path: str | Path) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
            upright = ImageOps.exif_transpose(image)
        if deep:  # Pillow's own conversion would clip 16 bits at 255.
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        return np.array(_to_rgb(upright, path))
    except UnidentifiedImageError:
        raise DataError(f"'{path}' is not an image of a known format") from None
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"image file '{path}' is too large: {error}") from None
    # Pillow has no exception of its own for broken data; it raises whatever its parsers hit on.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PassingReadError(f"image file '{path}' is broken: {error}") from None


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode in ("I", "F"):
        raise DataError(
            f"image file '{path}' has 32 bits a channel (Pillow's mode {image.mode}), of which "
            "nobody knows what is white; convert it to 8 or 16 bits"
        )
    if image.mode == "P":
        # A palette with transparency converts through RGBA only.
        image = image.convert("RGBA")
    return image.convert("RGB")
