"""COCO's detection numbers, in all and by class."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .best_points import BestPoint, best_points
from .coco_arrays import CocoArrays, coco_arrays
from .coco_files import read_ground_truth, read_results
from .coco_matching import CocoCurves, Matches, evaluate_arrays
from .reachable import warn_of_limits

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # pycocotools' order of area ranges
_IOU50, _IOU75 = 0, 5  # of the IoU thresholds 0.5, 0.55, ..., 0.95


@dataclass(frozen=True)
class CocoMetrics:
    """Numbers in percent; NaN where there is no ground truth.

    Attributes:
        summary: COCO's twelve numbers: AP, AP50, AP75, APs, APm, APl; AR at each of the
            limits of detections, then ARs, ARm, ARl.
        class_ap: AP by category id.
        class_ap50: AP at IoU 0.5 by category id.
        class_ar: AR at the last limit by category id.
        best_points: By category id, the score threshold of greatest F1 at IoU 0.5.
    """

    summary: dict[str, float]
    class_ap: dict[Any, float]
    class_ap50: dict[Any, float]
    class_ar: dict[Any, float]
    best_points: dict[Any, BestPoint]

    def flat(self, class_names: Mapping[Any, str]) -> dict[str, float]:
        """All but the best points in one dict: "AP", ..., "AP-<class>", "AP50-<class>", ...

        Args:
            class_names: By category id, in the order that the dict shall have.
        """
        values = dict(self.summary)
        columns = {"AP": self.class_ap, "AP50": self.class_ap50, "AR": self.class_ar}
        for key, column in columns.items():
            values |= {f"{key}-{name}": column[c] for c, name in class_names.items()}
        return values


@dataclass(frozen=True)
class CocoEvaluation:
    """One evaluation with all that led to its numbers.

    Attributes:
        arrays: What was evaluated.
        matches: What each detection found.
        curves: Precision over recall, as in pycocotools.
        metrics: The numbers.
    """

    arrays: CocoArrays
    matches: Matches
    curves: CocoCurves
    metrics: CocoMetrics


def coco_box_metrics(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    max_detections: Sequence[int] = (1, 10, 100),
) -> CocoMetrics:
    """Evaluate boxes.

    Args:
        ground_truth: The content of an annotation file: ``images``, ``categories`` and
            ``annotations``, boxes as XYWH in pixels.
        results: Dicts of ``image_id``, ``category_id``, ``bbox`` (XYWH in pixels) and ``score``.
        max_detections: Three limits of the detections of a class in an image, ascending. AP and
            the AR by area use the last one.

    Raises:
        DataError: A result's image is not in the ground truth, or an entry cannot be read.
    """
    arrays = coco_arrays(ground_truth, results)
    return evaluate_boxes(arrays, max_detections=max_detections).metrics


def evaluate_coco_files(
    annotations: str | os.PathLike[str],
    results: str | os.PathLike[str],
    *,
    max_detections: Sequence[int] = (1, 10, 100),
) -> dict[str, float]:
    """Evaluate a results file against an annotation file, both COCO's JSON.

    Returns:
        The same dict as ``COCOEvaluator.evaluate()["bbox"]``: percent, and AP by class.
    """
    arrays = coco_arrays(read_ground_truth(annotations), read_results(results))
    metrics = evaluate_boxes(arrays, max_detections=max_detections).metrics
    return metrics.flat(dict(zip(arrays.category_ids, arrays.class_names, strict=True)))


def evaluate_boxes(
    arrays: CocoArrays, *, max_detections: Sequence[int] = (1, 10, 100)
) -> CocoEvaluation:
    """Evaluate arrays; see :func:`coco_box_metrics`. Warns where limits keep AP from 100."""
    matches, curves = evaluate_arrays(arrays, max_detections)
    warn_of_limits(arrays, matches.limits[-1])
    ids = arrays.category_ids
    metrics = CocoMetrics(
        {name: 100 * value if value > -1 else math.nan
         for name, value in coco_summary(curves, max_detections).items()},
        _by_class(ids, curves.precision[:, :, :, _ALL, -1]),
        _by_class(ids, curves.precision[_IOU50, :, :, _ALL, -1]),
        _by_class(ids, curves.recall[:, :, _ALL, -1]),
        dict(zip(ids, best_points(matches), strict=True)),
    )  # fmt: skip
    return CocoEvaluation(arrays, matches, curves, metrics)


def coco_summary(curves: CocoCurves, max_detections: Sequence[int]) -> dict[str, float]:
    """The twelve numbers as fractions, -1 for an absent one: pycocotools' ``stats`` by name."""

    def ap(thresholds: slice | int = slice(None), area: int = _ALL) -> float:
        return _mean(curves.precision[thresholds, ..., area, -1])

    def ar(area: int = _ALL, limit: int = -1) -> float:
        return _mean(curves.recall[..., area, limit])

    return {
        "AP": ap(),
        "AP50": ap(_IOU50),
        "AP75": ap(_IOU75),
        "APs": ap(area=_SMALL),
        "APm": ap(area=_MEDIUM),
        "APl": ap(area=_LARGE),
        **{f"AR{limit}": ar(limit=m) for m, limit in enumerate(max_detections)},
        "ARs": ar(_SMALL),
        "ARm": ar(_MEDIUM),
        "ARl": ar(_LARGE),
    }


def _by_class(ids: Sequence[Any], values: np.ndarray) -> dict[Any, float]:
    means = (_mean(values[..., k]) for k in range(len(ids)))
    return {key: 100 * m if m > -1 else math.nan for key, m in zip(ids, means, strict=True)}


def _mean(values: np.ndarray) -> float:
    present = values[values > -1]  # -1 stands for a class without ground truth
    return float(np.mean(present)) if len(present) else -1.0
