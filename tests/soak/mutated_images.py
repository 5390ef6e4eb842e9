"""Broken and hostile image files: each is read, or refused with a DataError, within limits.

    python tests/soak/mutated_images.py --count 2000 --seed 0

A file that was cut short must be refused; no mutation may end in a traceback, take more than
5 seconds or more than 1 GB.
"""

import io
import pathlib
import random
import struct
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from limits import run_command_line, run_within_limits

from detlite.data import read_image
from detlite.errors import DataError

SECONDS, BYTES = 5.0, 2**30
JPEG_END = b"\xff\xd9"
# What each format is written with; the first of a format is its usual form.
FORMS = [
    ("jpg", {"quality": 90}),
    ("jpg", {"quality": 75, "progressive": True}),
    ("png", {}),
    ("bmp", {}),
    ("tif", {}),
    ("tif", {"compression": "tiff_lzw"}),
    ("webp", {"quality": 80}),
    ("webp", {"lossless": True}),
    ("gif", {}),
]
FORMAT_NAMES = {
    "jpg": "JPEG",
    "png": "PNG",
    "bmp": "BMP",
    "tif": "TIFF",
    "webp": "WEBP",
    "gif": "GIF",
}


class Mutation(NamedTuple):
    """A file, what was done to it, and whether it must be refused."""

    what: str
    data: bytes
    refused: bool


def originals() -> list[tuple[str, bytes]]:
    """A picture in every form; smooth with grain, so that every part of a file matters."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:90, :130]
    smooth = np.stack([rows * 2, columns, rows + columns], axis=2)
    picture = (smooth + generator.integers(0, 30, smooth.shape)).astype(np.uint8)
    files = []
    for suffix, options in FORMS:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format=FORMAT_NAMES[suffix], **options)
        files.append((f"{suffix} {options}", buffer.getvalue()))
    return files


def mutations(seed: int, count: int) -> Iterator[Mutation]:
    """``count`` of them; the same for the same arguments."""
    files = originals()
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        name, data = rng.choice(files)
        yield rng.choice([cut, cut_with_end, flip, overwrite, insert, splice, claim])(
            rng, name, data
        )


def cut(rng: random.Random, name: str, data: bytes) -> Mutation:
    """The file ends too early."""
    share = rng.uniform(0.02, 0.95)
    return Mutation(f"{name}: cut at {share:.3f}", data[: int(len(data) * share)], True)


def cut_with_end(rng: random.Random, name: str, data: bytes) -> Mutation:
    """A JPEG ends too early, and yet with an end marker."""
    mutation = cut(rng, name, data)
    # What is_cut_short says of the last scan of a progressive file: half of such cuts are found.
    refused = "progressive" not in name
    return Mutation(f"{mutation.what}, end marker", mutation.data + JPEG_END, refused)


def flip(rng: random.Random, name: str, data: bytes) -> Mutation:
    """Some bits are others."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 2, 8, 64])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return Mutation(f"{name}: bits", bytes(changed), False)


def overwrite(rng: random.Random, name: str, data: bytes) -> Mutation:
    """A stretch of one value, mostly in the header."""
    begin = rng.randrange(rng.choice([64, len(data)]))
    length = rng.choice([1, 2, 4, 16, 400])
    filled = bytes([rng.choice([0, 255, rng.randrange(256)])]) * length
    return Mutation(
        f"{name}: at {begin} {filled[:4]!r}", data[:begin] + filled + data[begin + length :], False
    )


def insert(rng: random.Random, name: str, data: bytes) -> Mutation:
    """Bytes that do not belong there, or of which some are missing."""
    begin, length = rng.randrange(len(data)), rng.choice([1, 3, 100, 5000])
    if rng.random() < 0.5:
        return Mutation(
            f"{name}: {length} bytes gone at {begin}", data[:begin] + data[begin + length :], False
        )
    return Mutation(
        f"{name}: {length} more at {begin}",
        data[:begin] + rng.randbytes(length) + data[begin:],
        False,
    )


def splice(rng: random.Random, name: str, data: bytes) -> Mutation:
    """The beginning of one file and the end of another."""
    other, rest = rng.choice(originals())
    begin = rng.randrange(len(data))
    return Mutation(f"{name}: up to {begin}, then {other}", data[:begin] + rest[begin:], False)


def claim(rng: random.Random, name: str, data: bytes) -> Mutation:
    """The size, wherever it stands, is another."""
    size = rng.choice([0, 1, 255, 30000, 65535, 2**31 - 1, 2**32 - 1])
    changed = data
    for old in (90, 130):
        for form in (">H", "<H", ">I", "<I"):
            limit = 2 ** (16 if form[1] == "H" else 32) - 1
            changed = changed.replace(
                struct.pack(form, old), struct.pack(form, min(size, limit)), 1
            )
    return Mutation(f"{name}: size {size}", changed, False)


def problem_of(mutation: Mutation, path: pathlib.Path) -> str:
    """What is wrong with how a file is read; "" if nothing is."""
    try:
        image = read_image(path)
    except DataError as error:
        lines = str(error).splitlines()
        too_long = len(lines) > 3 or max(map(len, lines)) > 600
        return f"a message of {len(lines)} lines" if too_long else ""
    if mutation.refused:
        return f"read as {tuple(image.shape)}, although data are missing"
    right = image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3
    return "" if right else f"read as {tuple(image.shape)} {image.dtype}"


def failures(count: int, seed: int) -> list[str]:
    """Read ``count`` mutations; one line for each that went wrong."""
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "image.jpg")
        path.write_bytes(originals()[0][1])
        read_image(path)  # what is imported and allocated once counts for nobody
        for number, mutation in enumerate(mutations(seed, count)):
            path.write_bytes(mutation.data)
            problem = run_within_limits(partial(problem_of, mutation, path), SECONDS, BYTES)
            if problem:
                found.append(f"{number} {mutation.what}: {problem}")
    return found


if __name__ == "__main__":
    run_command_line(failures, "images", 2000)
