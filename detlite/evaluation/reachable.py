"""The AP that limits of the number of detections leave within reach."""

import logging

import numpy as np

from .coco_arrays import CocoArrays

logger = logging.getLogger(__name__)

_RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_WORTH_TELLING = 99.95  # percent: what is above is 100.0 in a table


def reachable_ap(arrays: CocoArrays, limit: int) -> float:
    """AP in percent if the best ``limit`` detections of a class in an image were all right.

    NaN without an object to find.
    """
    classes, counts = _objects(arrays)
    num_classes = len(arrays.category_ids)
    objects = np.bincount(classes, counts, num_classes)
    found = np.bincount(classes, np.minimum(counts, limit), num_classes)
    recalls = found[objects > 0] / objects[objects > 0]
    if not len(recalls):
        return float("nan")
    points = np.searchsorted(_RECALL_POINTS, recalls, side="right")
    return float(100 * points.mean() / len(_RECALL_POINTS))


def warn_of_limits(arrays: CocoArrays, limit: int) -> None:
    """Log a warning where images have more objects than detections of them can count.

    The evaluator's own limit is known. The model's shows in the detections: every image with more
    objects than any image has detections has equally many of these.

    Args:
        arrays: Ground truth and detections.
        limit: Of the detections of a class in an image.
    """
    _, counts = _objects(arrays)
    most = int(counts.max(initial=0))
    _warn(arrays, limit, most, "of a class", "the evaluator's max_detections")
    num_images = len(arrays.image_ids)
    objects = np.bincount(arrays.gt_images[arrays.gt_crowd == 0], minlength=num_images)
    detections = np.bincount(arrays.images, minlength=num_images)
    cap = int(detections.max(initial=0))
    crowded = objects > cap
    if cap and crowded.any() and (detections[crowded] == cap).all():
        most = int(objects.max(initial=0))
        _warn(arrays, cap, most, "of all classes", "the model's model.postprocessor.max_detections")


def _warn(arrays: CocoArrays, limit: int, most: int, which: str, key: str) -> None:
    if (reachable := reachable_ap(arrays, limit)) < _WORTH_TELLING:
        logger.warning(
            "AP can reach %.2f at most: of up to %d objects %s in an image, %d can be found; the "
            "limit is %s. All objects can count with max_detections of at least that many, both of "
            "COCOEvaluator (its last number; --max-detections of tools/evaluate.py) and of "
            "model.postprocessor",
            reachable,
            most,
            which,
            limit,
            key,
        )


def _objects(arrays: CocoArrays) -> tuple[np.ndarray, np.ndarray]:
    """Of each class in an image that has objects to find: the class and how many."""
    counted = arrays.gt_crowd == 0
    num_images = max(len(arrays.image_ids), 1)
    pairs = arrays.gt_classes[counted].astype(np.int64) * num_images + arrays.gt_images[counted]
    keys, counts = np.unique(pairs, return_counts=True)
    return keys // num_images, counts
