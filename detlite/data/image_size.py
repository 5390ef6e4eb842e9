"""Sizes of images whose annotations do not say them, from the headers of the files."""

import logging
import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import DataError

logger = logging.getLogger(__name__)

# The suffixes of `datasets.image_files` stand for these; Pillow would also start Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
_EXIF_ORIENTATION, _TURNED = 0x0112, {5, 6, 7, 8}


def read_image_size(path: str) -> tuple[int, int]:
    """Height and width in pixels of an image turned upright, without decoding it.

    Raises:
        DataError: It is no image, or cannot be read.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
    except FileNotFoundError:
        raise DataError(f"there is no image file '{path}'") from None
    # Pillow has no exception of its own for broken data; it raises whatever its parsers hit on.
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"cannot read the size of image '{path}': {error}") from None
    return (width, height) if turned else (height, width)


def fill_sizes(
    name: str,
    folder: str | os.PathLike[str],
    file_names: Sequence[str],
    sizes: Sequence[tuple[float | None, float | None]],
) -> np.ndarray:
    """Sizes of all images; the files of those whose size is not known are opened.

    Args:
        name: The data set's name, for the log.
        folder: What ``file_names`` are relative to.
        file_names: N.
        sizes: N pairs of height and width in pixels; 0 or None where they are not known.

    Returns:
        (N, 2) int32 heights and widths.

    Raises:
        DataError: A file whose size is needed cannot be read.
    """
    known = [(height or 0, width or 0) for height, width in sizes]
    filled = np.array(known, np.int32).reshape(-1, 2)
    missing = np.flatnonzero((filled == 0).any(axis=1)).tolist()
    for i in missing:
        filled[i] = read_image_size(os.path.join(folder, file_names[i]))
    if missing:
        logger.info(
            "%s: the annotations do not say the size of %d of %d images, such as %r; it is taken "
            "from the image files",
            name,
            len(missing),
            len(filled),
            file_names[missing[0]],
        )
    return filled
