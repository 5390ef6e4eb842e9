"""What a JPEG file says before it is decoded, and whether it was decoded to its end.

libjpeg decodes a file that was cut short without an error: what is missing becomes gray, or coarse.
Its warnings go to stderr, where no binding that detlite depends on lets Python see them.
"""

import io
import re
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

START, END = b"\xff\xd8", b"\xff\xd9"

# T.81, table B.1. Start of frame: all of 0xC0 to 0xCF but the tables among them.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BASELINE = (0xC0, 0xC1)
_PROGRESSIVE = 0xC2
_SCAN, _RESTART_INTERVAL, _APP1 = 0xDA, 0xDD, 0xE1
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
# In compressed data 0xFF is followed by 0, by the number of a restart, or it is a marker.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_ALL_COEFFICIENTS = 2**64 - 1
# Decodes to blocks that are not gray, whatever the Huffman tables; without 0xFF.
_PROBE = bytes((73 * i * i + 41 * i + 5) % 251 for i in range(256))


@dataclass(frozen=True)
class JpegHeader:
    """The first frame of a file, up to its first scan.

    Attributes:
        height: In pixels, before any turn by the EXIF orientation.
        width: The same.
        process: The second byte of the frame's marker; 0xC0 is baseline, 0xC2 progressive.
        components: 1 for gray, 3 for color.
        scan: Where the marker of the first scan is.
        has_exif: Whether there is a segment that may turn the image.
        has_restarts: Whether the scans are cut into intervals.
    """

    height: int
    width: int
    process: int
    components: int
    scan: int
    has_exif: bool
    has_restarts: bool

    @classmethod
    def read(cls, data: bytes) -> "JpegHeader | None":
        """Walk over the segments before the first scan; None where they make no sense."""
        frame, seen = None, set()
        position = len(START)
        while (position := data.find(b"\xff", position)) >= 0:
            position = _skip_fill(data, position)
            marker = data[position - 1]
            if marker in _WITHOUT_LENGTH:
                continue
            length = int.from_bytes(data[position : position + 2], "big")
            if length < 2 or position + length > len(data):
                return None
            if marker == _SCAN:
                if frame is None:
                    return None
                exif, restarts = _APP1 in seen, _RESTART_INTERVAL in seen
                return cls(*frame, scan=position - 2, has_exif=exif, has_restarts=restarts)
            if marker in _FRAMES and frame is None and length >= 8:
                height, width = (
                    int.from_bytes(data[position + k : position + k + 2], "big") for k in (3, 5)
                )
                frame = (height, width, marker, data[position + 7])
            seen.add(marker)
            position += length
        return None


def whole_jpeg(data: bytes) -> bytes:
    """The data with the end marker that a file cut short lacks."""
    return data if data.endswith(END) else data + END


def is_cut_short(data: bytes, header: JpegHeader, pixels: np.ndarray) -> bool:
    """Whether a part of the compressed data is missing, with or without an end marker behind it.

    Of a sequential file the decoder leaves everything behind the cut gray, so that only a file with
    a gray last pixel is looked at twice: bytes put before the end change a picture that lacks some,
    and no other. Of a progressive file all scans must be there. That the last one of them is cut
    short is found in half of the cases: it holds the lowest bit of some coefficients, and to look
    twice at each file would double the time of decoding.

    Args:
        data: The file.
        header: Its header.
        pixels: (H, W, 3) uint8, what it was decoded to.
    """
    covered, scans, end = _scans(data, header)
    if len(covered) < header.components or any(c != _ALL_COEFFICIENTS for c in covered.values()):
        return True
    has_end = end < len(data)
    if header.process == _PROGRESSIVE:
        # Encoders fill the last byte up with ones (T.81, F.1.2.3).
        return not has_end or (data[end - 1] % 2 == 0 and _has_room(data[:end], header))
    plain = header.process in _BASELINE and scans == 1 and header.components in (1, 3)
    if plain and has_end and not _ends_gray(pixels, header.has_exif):
        return False
    return _has_room(data[:end], header)


def _skip_fill(data: bytes, position: int) -> int:
    """From a 0xFF to behind the marker; any number of 0xFF may stand before its second byte."""
    while position < len(data) and data[position] == 0xFF:
        position += 1
    return min(position + 1, len(data))


def _scans(data: bytes, header: JpegHeader) -> tuple[dict[int, int], int, int]:
    """The finished coefficients of each component as bits, the number of scans, where they end."""
    covered: dict[int, int] = {}
    scans, position = 0, header.scan
    while match := _MARKER.search(data, position):
        marker = match[0][1]
        if marker == END[1]:
            return covered, scans, match.start()
        position = match.end() + int.from_bytes(data[match.end() : match.end() + 2], "big")
        if marker != _SCAN:
            continue
        scans += 1
        count = data[match.end() + 2] if match.end() + 2 < len(data) else 0
        body = data[match.end() + 3 : match.end() + 3 + 2 * count + 3]
        if len(body) < 2 * count + 3:
            break
        first, last, low_bit = body[-3], body[-2], body[-1] & 15
        finished = _ALL_COEFFICIENTS
        if header.process == _PROGRESSIVE:
            finished = (1 << min(last, 63) + 1) - (1 << min(first, 63)) if low_bit == 0 else 0
        for component in body[: 2 * count : 2]:
            covered[component] = covered.get(component, 0) | finished
    return covered, scans, len(data)


def _ends_gray(pixels: np.ndarray, has_exif: bool) -> bool:
    """Whether the last pixel, before any turn, may be one that the decoder has not reached."""
    corners = product((0, -1), repeat=2) if has_exif else [(-1, -1)]
    # Only luma: chroma is blended with that of the neighbours.
    for corner in corners:
        red, green, blue = pixels[corner].tolist()
        if abs(0.299 * red + 0.587 * green + 0.114 * blue - 128) < 2:
            return True
    return False


def _has_room(body: bytes, header: JpegHeader) -> bool:
    """Whether further bytes would be decoded; ``body`` is the file up to its end marker."""
    body, probe = body.rstrip(b"\xff"), _PROBE
    if header.has_restarts or b"\xff\xdd" in body[header.scan :]:
        # A cut may lie just before a restart, and the decoder then waits for its number.
        numbers = [0xD0 + 7, *(match[0][1] for match in _RESTART.finditer(body, header.scan))]
        expected = 0xD0 + (numbers[-1] + 1) % 8
        probe += bytes([0xFF, expected]) + _PROBE
    try:
        plain, probed = (_decode_small(c, header) for c in (body + END, body + probe + END))
    except (OSError, SyntaxError, ValueError):  # broken data, or bytes that made no sense there
        return True
    return not np.array_equal(plain, probed)


def _decode_small(content: bytes, header: JpegHeader) -> np.ndarray:
    # Not by OpenCV, through which libjpeg writes to stderr that there are bytes too many.
    with JpegImageFile(io.BytesIO(content)) as image:
        if header.process != _PROGRESSIVE:  # whose last scan does not change the means of blocks
            image.draft(None, (header.width // 8, header.height // 8))
        return np.asarray(image)
