"""Which detection finds which object, and the curves of precision over recall that follow.

COCO's rules (Lin et al. 2014, https://cocodataset.org/#detection-eval), and to the last bit the
arrays of pycocotools: of a class in an image the best-scored detections each take the free object
of greatest IoU, at ten IoU thresholds and in four ranges of area, side by side.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..errors import ConfigError
from . import compiled
from .coco_arrays import CocoArrays
from .pycocotools_fallback import evaluate_with_pycocotools

AREA_NAMES = ("all", "small", "medium", "large")
AREA_RANGES = np.array(
    [[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]]
)  # square pixels, both ends inclusive
# linspace, because arange's numbers lie off by the last bit, and points would be missed.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)

# Below, starting threads takes longer than the work.
_WORTH_THREADS = 20_000


@dataclass
class Matches:
    """What every kept detection of n found, class after class, within a class best score first.

    Masks hold one bit for each IoU threshold, the first threshold in the lowest bit. The ground
    truth is sorted by class and image; :func:`match_boxes` fills the rest in.

    Attributes:
        limits: M limits of the detections of a class in an image, ascending.
        thresholds: (T,) float64 least IoU of a match, ascending.
        area_ranges: (A, 2) float64 in square pixels.
        recall_points: (R,) float64.
        offsets: (K + 1,) int64; the detections of class k begin at ``offsets[k]``,
        ends: (K,) int64, and those that were kept end at ``ends[k]``.
        order: (D,) int32, the detections by class and image.
        index: (D,) int32, which detection this is in the arrays.
        images: (D,) int32.
        ranks: (D,) int32, 0 for the best of its class in its image.
        scores: (D,) float64.
        matched: (D, A) uint16, the thresholds at which it has an object.
        ignored: (D, A) uint16, the thresholds at which it counts neither as true nor as false.
        gt_offsets: (K + 1,) int64; ``gt_offsets[k]:gt_offsets[k + 1]`` are the objects of class k.
        gt_boxes: (G, 4) float64 XYWH.
        gt_images: (G,) int32.
        gt_crowd: (G,) uint8.
        gt_counted: (G, A) uint8, 1 for an object that is to be found.
        weights: (N,) int32, how often each image counts.
    """

    limits: tuple[int, ...]
    thresholds: np.ndarray
    area_ranges: np.ndarray
    recall_points: np.ndarray
    offsets: np.ndarray
    ends: np.ndarray
    order: np.ndarray
    index: np.ndarray
    images: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    gt_offsets: np.ndarray
    gt_boxes: np.ndarray
    gt_images: np.ndarray
    gt_crowd: np.ndarray
    gt_counted: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class CocoCurves:
    """The arrays of pycocotools' ``eval``; -1 where a class has no object to find.

    Attributes:
        precision: (T, R, K, A, M), the greatest precision at this recall or a higher one.
        recall: (T, K, A, M), the recall of all detections.
        scores: (T, R, K, A, M), the score at which the recall is reached.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


def evaluate_arrays(arrays: CocoArrays, limits: Sequence[int]) -> tuple[Matches, CocoCurves]:
    """Match all boxes and draw all curves, compiled where possible.

    Without the compiled part the matches hold the area range "all" only.

    Args:
        arrays: Ground truth and detections.
        limits: Limits of the detections of a class in an image, ascending.
    """
    limits = tuple(int(limit) for limit in limits)
    if not limits or list(limits) != sorted(set(limits)) or limits[0] < 1:
        raise ConfigError(f"max_detections must be positive ascending numbers, got {list(limits)}")
    matches = _empty_matches(arrays, limits)
    if not compiled.COMPILED:
        compiled.warn_once()
        return matches, CocoCurves(*evaluate_with_pycocotools(arrays, matches))
    return match_boxes(arrays, matches), curves(matches)


def match_boxes(arrays: CocoArrays, matches: Matches) -> Matches:
    """Fill in what the detections found."""
    num_images, num_classes = len(arrays.image_ids), len(arrays.category_ids)
    matches.order, matches.offsets = compiled.group_by_class(
        arrays.images, arrays.classes, num_images, num_classes
    )
    matches.ends[:] = matches.offsets[:-1]
    run_by_class(partial(compiled.match_class, arrays, matches), matches)
    return matches


def curves(matches: Matches) -> CocoCurves:
    """Precision and recall of the matches, each image counted as often as its weight says."""
    num_classes, num_limits = len(matches.ends), len(matches.limits)
    t, a, r = len(matches.thresholds), len(matches.area_ranges), len(matches.recall_points)
    precision = np.full((num_classes, a * num_limits, t, r), -1.0)
    scores = np.full((num_classes, a * num_limits, t, r), -1.0)
    recall = np.full((num_classes, a * num_limits, t), -1.0)

    def draw(k: int) -> None:
        compiled.class_curves(matches, k, precision[k], scores[k], recall[k])

    run_by_class(draw, matches)
    shape = (num_classes, a, num_limits, t, r)
    # Views in pycocotools' order of axes; the values stay where they were written.
    return CocoCurves(
        precision.reshape(shape).transpose(3, 4, 0, 1, 2),
        recall.reshape(shape[:-1]).transpose(3, 0, 1, 2),
        scores.reshape(shape).transpose(3, 4, 0, 1, 2),
    )


def run_by_class(task: Callable[[int], None], matches: Matches) -> None:
    """Call ``task`` with every class, in threads where there is enough to do.

    Threads of Python, not of OpenMP: the compiled loops let go of the GIL, so nothing is lost, and
    no second OpenMP runtime is loaded beside torch's, nor is one needed where compilers have none.
    """
    sizes = np.diff(matches.offsets)
    largest_first = np.argsort(-sizes, kind="stable").tolist()
    run_threads(task, largest_first, worth_it=sizes.sum() >= _WORTH_THREADS)


def run_threads(task: Callable[[int], None], items: Sequence[int], *, worth_it: bool) -> None:
    """Call ``task`` with every item, on all cores if that is worth it."""
    num_threads = min(num_cores(), len(items)) if worth_it else 1
    if num_threads < 2:
        for item in items:
            task(item)
        return
    with ThreadPoolExecutor(num_threads, "coco-evaluation") as pool:
        list(pool.map(task, items))


def num_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _empty_matches(arrays: CocoArrays, limits: tuple[int, ...]) -> Matches:
    n, num_areas, num_classes = len(arrays.scores), len(AREA_RANGES), len(arrays.category_ids)
    order = np.lexsort((arrays.gt_images, arrays.gt_classes))  # stable
    areas = arrays.gt_areas[order, None]
    outside = (areas < AREA_RANGES[:, 0]) | (areas > AREA_RANGES[:, 1])
    crowd = arrays.gt_crowd[order]
    counts = np.bincount(arrays.gt_classes, minlength=num_classes)
    return Matches(
        limits=limits,
        # pycocotools caps them too: an IoU of 1 that was rounded down must reach a threshold of 1.
        thresholds=np.minimum(IOU_THRESHOLDS, 1 - 1e-10),
        area_ranges=AREA_RANGES,
        recall_points=RECALL_POINTS,
        offsets=np.zeros(num_classes + 1, np.int64),
        ends=np.zeros(num_classes, np.int64),
        order=np.zeros(0, np.int32),
        index=np.empty(n, np.int32),
        images=np.empty(n, np.int32),
        ranks=np.empty(n, np.int32),
        scores=np.empty(n),
        matched=np.empty((n, num_areas), np.uint16),
        ignored=np.empty((n, num_areas), np.uint16),
        gt_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        gt_boxes=np.ascontiguousarray(arrays.gt_boxes[order]),
        gt_images=arrays.gt_images[order],
        gt_crowd=crowd,
        gt_counted=(~outside & (crowd[:, None] == 0)).astype(np.uint8),
        weights=np.ones(len(arrays.image_ids), np.int32),
    )
