"""COCO's detection numbers, as pycocotools computes them; no other file knows pycocotools."""

import contextlib
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import DataError

logger = logging.getLogger(__name__)

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # pycocotools' order of area ranges
_IOU50, _IOU75 = 0, 5  # of the IoU thresholds 0.5, 0.55, ..., 0.95


@dataclass(frozen=True)
class CocoMetrics:
    """Numbers in percent; NaN where there is no ground truth.

    Attributes:
        summary: COCO's twelve numbers: AP, AP50, AP75, APs, APm, APl; AR at each of the three
            limits of detections, then ARs, ARm, ARl.
        class_ap: AP by category id.
        class_ap50: AP at IoU 0.5 by category id.
    """

    summary: dict[str, float]
    class_ap: dict[int, float]
    class_ap50: dict[int, float]


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
        DataError: A result's image is not in the ground truth.
    """
    _check_results(ground_truth, results)
    # pycocotools prints; there is no switch for it
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _coco({**ground_truth, "annotations": _annotations(ground_truth)})
        found = _coco({**ground_truth, "annotations": _detections(results)})
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (T, recall thresholds, K, areas, limits)
    recall = evaluation.eval["recall"]  # (T, K, areas, limits)
    categories = [int(category) for category in evaluation.params.catIds]
    by_class = precision[:, :, :, _ALL, -1]
    return CocoMetrics(
        _summary(precision, recall, max_detections),
        {c: _mean(by_class[:, :, k]) for k, c in enumerate(categories)},
        {c: _mean(by_class[_IOU50, :, k]) for k, c in enumerate(categories)},
    )


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
    truth = json.loads(Path(annotations).read_text(encoding="utf-8"))
    found = json.loads(Path(results).read_text(encoding="utf-8"))
    metrics = coco_box_metrics(truth, found, max_detections=max_detections)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    by_class = {f"AP-{names[c]}": value for c, value in metrics.class_ap.items()}
    return metrics.summary | by_class


def _summary(
    precision: np.ndarray, recall: np.ndarray, max_detections: Sequence[int]
) -> dict[str, float]:
    def ap(thresholds: slice | int = slice(None), area: int = _ALL) -> float:
        return _mean(precision[thresholds, ..., area, -1])

    def ar(area: int = _ALL, limit: int = -1) -> float:
        return _mean(recall[..., area, limit])

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


def _mean(values: np.ndarray) -> float:
    present = values[values > -1]  # -1 stands for a class without ground truth
    return 100 * float(np.mean(present)) if len(present) else float("nan")


def _coco(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = content
    coco.createIndex()
    return coco


def _annotations(ground_truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Copies with what the evaluation reads; it writes into them."""
    entries = ground_truth["annotations"]
    ids = [entry.get("id") for entry in entries]
    if len(set(ids)) < len(ids) or not all(ids):
        logger.warning(
            "annotation ids are missing, zero or not unique; pycocotools would lose these objects, "
            "so they are numbered anew"
        )
        ids = list(range(1, len(ids) + 1))
    return [
        {
            "id": number,
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "bbox": entry["bbox"],
            "area": entry.get("area", entry["bbox"][2] * entry["bbox"][3]),
            "iscrowd": entry.get("iscrowd", 0),
        }
        for number, entry in zip(ids, entries, strict=True)
    ]


def _detections(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **result,
            "id": number,
            "area": result["bbox"][2] * result["bbox"][3],
            "iscrowd": 0,
        }
        for number, result in enumerate(results, start=1)
    ]


def _check_results(ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    images = {image["id"] for image in ground_truth["images"]}
    strange = {result["image_id"] for result in results} - images
    if strange:
        raise DataError(
            f"the results name {len(strange)} images that are not in the ground truth, "
            f"e.g. {next(iter(strange))!r}"
        )
    categories = {category["id"] for category in ground_truth["categories"]}
    others = {result["category_id"] for result in results} - categories
    if others:
        logger.warning("results of unknown category ids do not count: %s", sorted(others))
