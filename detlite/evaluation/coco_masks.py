"""The boxes around COCO's polygons and run-length encoded masks, for annotations without `bbox`.

pycocotools decodes masks too, but reads beyond the end of a broken string, and divides by a height
of zero; files that people send must not be able to do that.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

Box = tuple[float, float, float, float]


def box_of_segmentation(segmentation: Any) -> Box:
    """The smallest box around a ``segmentation`` of COCO's JSON.

    Args:
        segmentation: Polygons ``[[x, y, x, y, ...], ...]``, or ``{"size": [height, width],
            "counts": ...}`` with counts as a list or in COCO's compressed form.

    Returns:
        x, y, width, height in pixels; four zeros for a mask without a pixel.

    Raises:
        ValueError: It is neither; the message says what is wrong with it.
    """
    if isinstance(segmentation, Mapping):
        return _box_of_runs(segmentation)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str) or not segmentation:
        raise ValueError("it must be polygons [[x, y, x, y, ...], ...] or an RLE mask")
    # Some tools leave out the outer list where there is one polygon.
    polygons = [segmentation] if isinstance(segmentation[0], int | float) else segmentation
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        if not isinstance(polygon, Sequence) or not all(map(_is_coordinate, polygon)):
            raise ValueError("a polygon must be a list of finite numbers x, y, x, y, ...")
        if len(polygon) < 4 or len(polygon) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers is no list of two or more x, y")
        xs += polygon[0::2]
        ys += polygon[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _is_coordinate(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _box_of_runs(mask: Mapping[str, Any]) -> Box:
    size, counts = mask.get("size"), mask.get("counts")
    if not (
        isinstance(size, Sequence)
        and len(size) == 2
        and all(type(side) is int and 0 < side < 2**31 for side in size)
    ):
        raise ValueError("the `size` of an RLE mask must be [height, width] in pixels")
    height, width = size
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise ValueError("the `counts` of an RLE mask must be lengths of runs, or COCO's string")
    if sum(runs) != height * width:
        raise ValueError(f"the `counts` of an RLE mask of {size} add up to {sum(runs)} pixels")
    # Runs go down the columns, by turns of pixels outside and inside.
    ends = list(accumulate(runs))
    inside = [(a, b - 1) for a, b in zip(ends[0::2], ends[1::2], strict=False) if a < b]
    if not inside:
        return 0.0, 0.0, 0.0, 0.0
    left, right = inside[0][0] // height, inside[-1][1] // height
    if any(first // height != last // height for first, last in inside):
        top, bottom = 0, height - 1
    else:
        top = min(first % height for first, _ in inside)
        bottom = max(last % height for _, last in inside)
    return float(left), float(top), float(right - left + 1), float(bottom - top + 1)


def _decompress(text: str) -> list[int]:
    """The lengths of COCO's compressed form: six bits a character, as differences (maskApi.c)."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"the `counts` of an RLE mask hold the character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the `counts` of an RLE mask end within a number")
    return runs
