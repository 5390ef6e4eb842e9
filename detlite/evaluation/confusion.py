"""Which class is taken for which: the confusion matrix of detections."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .coco_arrays import CocoArrays

# Pairs of boxes that are compared at once: some 100 MB.
_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of objects by their class (row) and the class of what found them (column).

    Attributes:
        counts: (K + 1, K + 1) int64. The last row counts detections without an object, the last
            column objects without a detection; both are "background".
        score_threshold: Detections below it are left out.
        iou_threshold: Least IoU of a detection and its object.
    """

    counts: np.ndarray
    score_threshold: float
    iou_threshold: float

    def most_confused(self, limit: int) -> list[tuple[int, int, int]]:
        """Object's class, detection's class and count of the commonest confusions, no misses."""
        pairs = self.counts[:-1, :-1].copy()
        np.fill_diagonal(pairs, 0)
        order = np.argsort(-pairs, axis=None, kind="stable")[:limit]
        rows, columns = np.unravel_index(order, pairs.shape)
        found = zip(rows.tolist(), columns.tolist(), pairs[rows, columns].tolist(), strict=True)
        return [entry for entry in found if entry[2]]


def confusion_matrix(
    arrays: CocoArrays,
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
    max_detections: int = 100,
) -> ConfusionMatrix:
    """Match detections to objects of any class, and count the classes that meet.

    The rule: in each image the ``max_detections`` best-scored detections of at least
    ``score_threshold`` come in the order of their scores. Each takes, of the objects that are
    still free and that it overlaps with an IoU of at least ``iou_threshold``, the one it overlaps
    most; of equal ones an object of its own class, then the first. Crowds are ignored: they are
    not to be found, and a detection without an object of which a crowd of its own class covers
    the share ``iou_threshold`` is left out.
    """
    num_classes = len(arrays.category_ids)
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    plain = arrays.gt_crowd == 0
    missed = plain.copy()
    order = _by_image_and_score(arrays, score_threshold, max_detections)
    gt_order = np.argsort(arrays.gt_images, kind="stable")
    lone = np.ones(len(arrays.scores), bool)
    for part in _parts(arrays.images[order], arrays.gt_images):
        found, objects = _pairs(arrays, order[part], gt_order)
        crowd = ~plain[objects]
        overlap = _overlaps(arrays.boxes[found], arrays.gt_boxes[objects], crowd)
        near = overlap >= iou_threshold
        found, objects, overlap = found[near], objects[near], overlap[near]
        same = arrays.classes[found] == arrays.gt_classes[objects]
        # Of a detection, the best object first; detections stay in their order.
        group = np.cumsum(np.diff(found, prepend=-1) != 0)
        best = np.lexsort((objects, ~same, -overlap, group))
        for i in best[plain[objects[best]]].tolist():
            d, g = found[i], objects[i]
            if lone[d] and missed[g]:
                lone[d] = missed[g] = False
                counts[arrays.gt_classes[g], arrays.classes[d]] += 1
        lone[found[~plain[objects] & same]] = False
    np.add.at(counts[-1], arrays.classes[order[lone[order]]], 1)
    np.add.at(counts[:, -1], arrays.gt_classes[missed], 1)
    return ConfusionMatrix(counts, score_threshold, iou_threshold)


def _by_image_and_score(arrays: CocoArrays, threshold: float, limit: int) -> np.ndarray:
    """The detections of each image from the threshold on, best first, up to the limit."""
    kept = np.flatnonzero(arrays.scores >= threshold)
    kept = kept[np.lexsort((-arrays.scores[kept], arrays.images[kept]))]  # stable
    images = arrays.images[kept]
    rank = np.arange(len(kept)) - np.searchsorted(images, images)
    return kept[rank < limit]


def _parts(images: np.ndarray, gt_images: np.ndarray) -> list[slice]:
    """Cut the detections between images, so that a part has not too many pairs."""
    per_image = np.bincount(gt_images, minlength=int(images.max(initial=0)) + 1)
    pairs = np.cumsum(per_image[images])
    begins = np.flatnonzero(np.diff(images, prepend=-1))
    parts, begin, done = [], 0, 0
    for next_image, end in pairwise(begins):
        if pairs[end - 1] - done > _PAIRS_AT_ONCE and next_image > begin:
            parts.append(slice(begin, int(next_image)))
            begin, done = int(next_image), int(pairs[next_image - 1])
    return [*parts, slice(begin, len(images))]


def _pairs(
    arrays: CocoArrays, detections: np.ndarray, gt_order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of a detection and an object of its image."""
    images = arrays.images[detections]
    sorted_images = arrays.gt_images[gt_order]
    first = np.searchsorted(sorted_images, images)
    count = np.searchsorted(sorted_images, images, side="right") - first
    begin = np.cumsum(count) - count
    within = np.arange(count.sum()) - np.repeat(begin, count)
    return np.repeat(detections, count), gt_order[np.repeat(first, count) + within]


def _overlaps(boxes: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU (P,) of pairs of boxes XYWH; for a crowd, the share of the detection that it covers."""
    ends = np.minimum(boxes[:, :2] + boxes[:, 2:], objects[:, :2] + objects[:, 2:])
    sides = (ends - np.maximum(boxes[:, :2], objects[:, :2])).clip(min=0)
    shared = sides.prod(axis=1)
    area = boxes[:, 2:].prod(axis=1)
    union = np.where(crowd, area, area + objects[:, 2:].prod(axis=1) - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
