"""Reading an image file into a tensor.

JPEG goes through OpenCV, every other format through Pillow. torchvision's decoder, which is as
fast, is deprecated since 0.29; on JPEG files the three agree to the bit.
"""

import contextlib
import errno
import io
import os
import re
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from ..config.schema import DataSection
from ..errors import ConfigError, DataError
from .jpeg import START, JpegHeader, is_cut_short, whole_jpeg
from .value_range import to_bytes, warn_if_narrow

# What the file system says for good; any other error may come from a network or a disk at work.
_LASTING = {
    errno.EACCES,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EPERM,
}

# Pillow alone would look further: its parser of EPS starts Ghostscript, others read other files.
_FORMATS: dict[bytes, Callable[[io.BytesIO], ImageFile]] = {
    START: JpegImageFile,
    rb"\x89PNG\r\n\x1a\n": PngImageFile,
    b"BM": BmpImageFile,
    rb"II[*+]\0|MM\0[*+]": TiffImageFile,
    b"RIFF....WEBP": WebPImageFile,
    b"GIF8": GifImageFile,
}
FORMAT_NAMES = "JPEG, PNG, BMP, TIFF, WebP, GIF"

# A file may hold 8 bytes a pixel (RGBA of 16 bits), and so many of metadata.
_BYTES_PER_PIXEL, _METADATA_BYTES = 8, 1 << 26
_STRIP_PIXELS = 1 << 22


class PassingReadError(DataError):
    """A file could not be read, by what may pass: an I/O error, a file that is still written."""


class ImageSizeError(DataError):
    """An image has another size than expected.

    Attributes:
        size: The (height, width) that it has.
    """

    def __init__(self, message: str, size: tuple[int, int]) -> None:
        super().__init__(message)
        self.size = size


@dataclass(frozen=True)
class ImageReader:
    """Reads image files, turned upright by their EXIF orientation.

    Color is RGB whatever the file holds: gray is repeated, a palette looked up, CMYK converted,
    an alpha channel dropped, and what has more than 8 bits a channel scaled to 8.

    Args:
        max_pixels: A file that says it has more is refused before it is decoded.
        image_range: Of images with more than 8 bits a channel, the values that become 0 and 255;
            None: 0 and 65535, and images of 32 bits or floating point numbers are refused.

    Raises:
        ConfigError: The range is none.
    """

    max_pixels: int = DataSection.max_pixels
    image_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.image_range is not None:
            low, high = self.image_range
            if not -np.inf < low < high < np.inf:
                raise ConfigError(
                    "data.image_range must be two finite numbers, the smaller first, "
                    f"got {list(self.image_range)}"
                )

    @classmethod
    def of(cls, section: DataSection) -> "ImageReader":
        """The reader that the ``data`` section of a config asks for."""
        given = section.image_range
        return cls(section.max_pixels, None if given is None else (given[0], given[1]))

    def read(self, path: str | Path, *, size: tuple[int, int] | None = None) -> Tensor:
        """Read an image.

        Args:
            path: The file; its name may hold any bytes, as ``os.fsdecode`` writes them.
            size: The (height, width) that the image must have, which is compared before decoding.

        Returns:
            (3, H, W) uint8 RGB. The memory lies as (H, W, 3), as decoders write it.

        Raises:
            ImageSizeError: It has another size.
            DataError: The file is missing, no image, or larger than ``max_pixels``.
            PassingReadError: It is empty, cut short or broken, or the file system failed; another
                attempt may succeed.
        """
        data = _read_file(path, _BYTES_PER_PIXEL * self.max_pixels + _METADATA_BYTES)
        file = _File(path, data, self, size)
        pixels = file.decode_jpeg() if data.startswith(START) else None
        if pixels is None:
            pixels = file.decode()
        file.check_final(pixels.shape[:2])
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def convert(self, image: Image.Image) -> Tensor:
        """A Pillow image as (3, H, W) uint8 RGB, as it lies: not turned.

        Raises:
            DataError: Its pixels cannot be read, or it needs an ``image_range``.
        """
        name = os.fsdecode(image.filename) if isinstance(image, ImageFile) else ""
        file = _File(name, b"", self, None)
        try:
            is_16_bit = image.mode.startswith("I;16")
            pixels = file.deep(image, is_16_bit) if image.mode[0] in "IF" else _rgb(image)
        except OSError as error:
            raise DataError(f"a Pillow image cannot be read: {error}") from None
        return torch.from_numpy(pixels).permute(2, 0, 1)


def read_image(
    path: str | Path,
    *,
    max_pixels: int = DataSection.max_pixels,
    image_range: tuple[float, float] | None = None,
) -> Tensor:
    """Read an image as (3, H, W) uint8 RGB; see ``ImageReader``."""
    return ImageReader(max_pixels, image_range).read(path)


def may_pass(error: Exception) -> bool:
    """Whether another attempt to read may succeed after this error."""
    if isinstance(error, OSError):
        return error.errno not in _LASTING
    return isinstance(error, PassingReadError)


def _read_file(path: str | Path, max_bytes: int) -> bytes:
    try:
        with open(path, "rb", buffering=0, opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"cannot read image file '{path}': it is no regular file")
            if status.st_size > max_bytes:
                raise DataError(
                    f"cannot read image file '{path}': it has {status.st_size:,} bytes, more than "
                    f"an image of data.max_pixels could have ({max_bytes:,})"
                )
            data = file.readall()
    except FileNotFoundError:
        raise DataError(f"there is no image file '{path}'") from None
    except OSError as error:
        kind = PassingReadError if may_pass(error) else DataError
        raise kind(f"cannot read image file '{path}': {error.strerror or error}") from None
    except DataError:
        raise
    except ValueError as error:  # NUL, or characters that no file name can have
        raise DataError(f"cannot read image file {str(path)!r}: {error}") from None
    if not data:
        raise PassingReadError(f"image file '{path}' is empty (0 bytes)")
    return data


def _open_at_once(path: str, flags: int) -> int:
    # A FIFO without a writer would block for ever.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@dataclass(frozen=True)
class _File:
    """The content of an image file, and what is asked of it."""

    path: str | Path
    data: bytes
    reader: ImageReader
    expected: tuple[int, int] | None

    def decode_jpeg(self) -> np.ndarray | None:
        """By OpenCV; None where Pillow can tell better what is wrong."""
        header = JpegHeader.read(self.data)
        if header is None:
            return None
        self.check_claimed(header.height, header.width, turned=header.has_exif)
        try:
            pixels = cv2.imdecode(np.frombuffer(whole_jpeg(self.data), np.uint8), cv2.IMREAD_COLOR)
            if pixels is None:
                return None
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
        except cv2.error:
            return None
        if is_cut_short(self.data, header, pixels):
            raise PassingReadError(
                f"image file '{self.path}' is broken: compressed data is missing"
            )
        return pixels

    def decode(self) -> np.ndarray:
        """By Pillow."""
        opener = next(
            (f for start, f in _FORMATS.items() if re.match(start, self.data, re.DOTALL)), None
        )
        if opener is None:
            raise DataError(f"'{self.path}' is not an image of a known format ({FORMAT_NAMES})")
        try:
            if opener is PngImageFile:
                _check_png(self.data)
            with opener(io.BytesIO(self.data)) as image:
                self.check_claimed(image.height, image.width, turned=True)
                if image.height * image.width <= (Image.MAX_IMAGE_PIXELS or self.reader.max_pixels):
                    return self._pixels(image)
                with _without_pillows_limit():
                    return self._pixels(image)
        except DataError:
            raise
        # Pillow has no exception of its own for broken data; it raises whatever its parsers hit on.
        except Exception as error:
            told = str(error) or type(error).__name__
            raise PassingReadError(f"image file '{self.path}' is broken: {told}") from None

    def _pixels(self, image: ImageFile) -> np.ndarray:
        if image.mode[0] != "I" and ";16" in str(image.tile):
            return self._deep_color(image)
        is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
        ImageOps.exif_transpose(image, in_place=True)
        return self.deep(image, is_16_bit) if image.mode[0] in "IF" else _rgb(image)

    def check_claimed(self, height: int, width: int, *, turned: bool) -> None:
        """Raise a DataError for what the header says, before memory is taken for the pixels."""
        if height * width > self.reader.max_pixels:
            raise DataError(
                f"image file '{self.path}' is too large: {width} x {height} are "
                f"{height * width:,} pixels, data.max_pixels is {self.reader.max_pixels:,}; raise "
                "it if there is memory for the image, or cut the image into tiles"
            )
        if self.expected != (height, width)[::-1] or not turned:
            self.check_final((height, width))

    def check_final(self, size: tuple[int, ...]) -> None:
        """Raise an ImageSizeError if the upright image has another size than expected."""
        height, width = size
        if self.expected not in (None, (height, width)):
            raise ImageSizeError(
                f"image file '{self.path}' has height {height} and width {width}, "
                f"(height, width) {self.expected} is expected",
                (height, width),
            )

    def deep(self, image: Image.Image, is_16_bit: bool) -> np.ndarray:
        """A gray image with more than 8 bits."""
        if self.reader.image_range is None and not is_16_bit:
            raise DataError(
                f"image file '{self.path}' has 32 bits a channel (Pillow's mode {image.mode}), of "
                "which nobody knows what is white; give data.image_range, the values that become "
                "black and white, or convert it to 8 or 16 bits"
            )
        if is_16_bit and self.reader.image_range is None:
            warn_if_narrow(self.path, (np.asarray(strip) for strip in _strips(image)))
        strips = (to_bytes(np.asarray(s), self.reader.image_range) for s in _strips(image))
        gray = np.concatenate(list(strips))
        return np.repeat(gray[:, :, None], 3, axis=2)

    def _deep_color(self, image: ImageFile) -> np.ndarray:
        """A color image of 16 bits a channel, of which Pillow would keep the upper 8."""
        orientation = image.getexif().get(0x0112, 1)
        image.load()  # raises what is wrong with the data, which OpenCV does not
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        deep = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
        if deep is None or deep.dtype != np.uint16:
            if self.reader.image_range is None:
                ImageOps.exif_transpose(image, in_place=True)
                return _rgb(image)
            raise DataError(f"image file '{self.path}' has 16 bits a channel in an unknown form")
        if self.reader.image_range is None:
            warn_if_narrow(self.path, [deep])
        upright = Image.fromarray(to_bytes(deep, self.reader.image_range)[:, :, ::-1])
        upright.getexif()[0x0112] = orientation
        ImageOps.exif_transpose(upright, in_place=True)
        return _rgb(upright)


_limit_lock = threading.Lock()


@contextlib.contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Parts of Pillow compare with its own limit too, which the user's has replaced."""
    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """The image in parts of whole rows, so that a large one is never copied at once."""
    rows = max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _rgb(image: Image.Image) -> np.ndarray:
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    top = 0
    for strip in _strips(image):
        if strip.mode == "P":
            # A palette with transparency converts through RGBA only.
            strip = strip.convert("RGBA")
        pixels[top : top + strip.height] = np.asarray(strip.convert("RGB"))
        top += strip.height
    return pixels


def _check_png(data: bytes) -> None:
    """Compare the checksums of the pixels' chunks, which Pillow skips.

    Raises:
        ValueError: One is wrong.
    """
    position: Any = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        if data[position + 4 : position + 8] == b"IDAT" and end + 4 <= len(data):
            stored = int.from_bytes(data[end : end + 4], "big")
            if zlib.crc32(memoryview(data)[position + 4 : end]) != stored:
                raise ValueError("the checksum of a chunk of pixels is wrong")
        position = end + 4
