"""Average precision as the Pascal VOC devkit defines it (Everingham et al. 2010)."""

import logging
import os
from typing import Literal

import numpy as np

from ..errors import ConfigError
from ..ranges import Fraction
from .detection_evaluator import DetectionEvaluator, Detections
from .evaluator import Results
from .ground_truth import GroundTruth
from .registries import EVALUATOR_REGISTRY
from .reports import class_table, write_json

logger = logging.getLogger(__name__)


@EVALUATOR_REGISTRY.register
class VOCEvaluator(DetectionEvaluator):
    """AP by class and its mean, in percent: "AP50", "AP50-<class>" for the IoU threshold 0.5.

    They stand under "voc", with ``method="11point"`` under "voc07", so that both can be listed.
    A detection belongs to the object of its class that it overlaps most; if that one is taken
    already, by a detection with a higher score, it is a false positive. Equal scores keep the
    order of images and of the model's output. Objects that are ``difficult``, or crowds, are
    neither to be found nor wrong to find. A class without any other object has no AP (NaN) and
    is left out of the mean.

    Args:
        dataset: The ground truth.
        output_dir: Where ``results_voc.json`` or ``results_voc07.json`` is written; neither is
            without it.
        iou_thresholds: Least IoU of a match, in (0, 1], each giving numbers of its own.
        method: "area" under the envelope of precision over recall (VOC 2010 and later), or the
            mean of the envelope at the recalls 0, 0.1, ..., 1 ("11point", VOC 2007).
        inclusive_pixels: Whether the right and lower edges belong to the box, as in the devkit:
            a width is then ``x2 - x1 + 1``. False for continuous coordinates.
    """

    def __init__(
        self,
        *,
        dataset: GroundTruth,
        output_dir: str | os.PathLike[str] | None = None,
        iou_thresholds: tuple[Fraction, ...] = (0.5,),
        method: Literal["area", "11point"] = "area",
        inclusive_pixels: bool = True,
    ) -> None:
        super().__init__(dataset, output_dir)
        if not iou_thresholds or not all(0 < threshold <= 1 for threshold in iou_thresholds):
            raise ConfigError(f"iou_thresholds must lie in (0, 1], got {iou_thresholds}")
        if method not in _AVERAGE_PRECISION:
            raise ConfigError(f"method must be 'area' or '11point', got '{method}'")
        self.iou_thresholds = list(iou_thresholds)
        self.method = method
        self.inclusive_pixels = inclusive_pixels

    def score(self, detections: list[Detections]) -> Results:
        """Match and average class by class; log the table, write the file."""
        ignored = self.dataset.crowd | self.dataset.difficult
        counted = np.bincount(self.dataset.classes[~ignored], minlength=self._num_classes)
        classes, scores, overlaps, objects = self._best_objects(detections)
        order = np.argsort(-scores, kind="stable")
        by_class = [order[classes[order] == k] for k in range(self._num_classes)]
        table = np.array(
            [
                [
                    self._class_ap(overlaps[d], objects[d], ignored, int(counted[k]), threshold)
                    for k, d in enumerate(by_class)
                ]
                for threshold in self.iou_thresholds
            ]
        )  # (T, K)
        return self._report(100 * table)

    @property
    def _num_classes(self) -> int:
        return len(self.dataset.class_names)

    def _best_objects(
        self, detections: list[Detections]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Class, score, best IoU and the object that gives it, each (D,), of all detections.

        The IoU is -1 where the image has no object of the class.
        """
        overlaps, objects = [np.zeros(0)], [np.zeros(0, np.int64)]
        for image, found in enumerate(detections):
            begin, end = self.dataset.offsets[image : image + 2].tolist()
            if begin == end:
                overlaps.append(np.full(len(found), -1.0))
                objects.append(np.full(len(found), -1))
                continue
            iou = _box_iou(
                found.boxes, _corners(self.dataset.boxes_xywh[begin:end]), self.inclusive_pixels
            )
            iou[found.classes[:, None] != self.dataset.classes[None, begin:end]] = -1
            overlaps.append(iou.max(axis=1))
            objects.append(begin + iou.argmax(axis=1))
        return (
            np.concatenate([np.zeros(0, np.int64), *(found.classes for found in detections)]),
            np.concatenate([np.zeros(0), *(found.scores for found in detections)]),
            np.concatenate(overlaps),
            np.concatenate(objects),
        )

    def _class_ap(
        self,
        overlaps: np.ndarray,
        objects: np.ndarray,
        ignored: np.ndarray,
        num_objects: int,
        threshold: float,
    ) -> float:
        """AP of the detections (D,) of one class, best score first."""
        if not num_objects:
            return float("nan")
        matched = overlaps >= threshold
        counts = np.ones(len(objects), bool)
        counts[matched] = ~ignored[objects[matched]]
        true = np.zeros(len(objects), bool)
        candidates = np.flatnonzero(matched & counts)
        true[candidates[np.unique(objects[candidates], return_index=True)[1]]] = True
        num_true = np.cumsum(true[counts])
        precision = num_true / np.arange(1, len(num_true) + 1)
        return _AVERAGE_PRECISION[self.method](num_true, precision, num_objects)

    def _report(self, table: np.ndarray) -> Results:
        names = self.dataset.class_names
        values: dict[str, float] = {}
        for threshold, row in zip(self.iou_thresholds, table, strict=True):
            key = f"AP{100 * threshold:g}"
            present = row[~np.isnan(row)]
            values[key] = float(present.mean()) if len(present) else float("nan")
            values |= {f"{key}-{name}": float(ap) for name, ap in zip(names, row, strict=True)}
        task = "voc" if self.method == "area" else "voc07"
        columns = [f"AP{100 * threshold:g}" for threshold in self.iou_thresholds]
        rows = [["mean", *(values[c] for c in columns)]]
        rows += [[name, *(values[f"{c}-{name}"] for c in columns)] for name in names]
        logger.info(
            "VOC AP (%s) of '%s' by class in percent:\n%s",
            self.method,
            self.dataset.name,
            class_table(["class", *columns], rows),
        )
        results = {task: values}
        if self.output_dir is not None:
            write_json(self.output_dir / f"results_{task}.json", results)
        return results


def _area_ap(num_true: np.ndarray, precision: np.ndarray, num_objects: int) -> float:
    """Area under the largest precision at this recall or a higher one."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(envelope * np.diff(num_true, prepend=0)) / num_objects)


def _eleven_point_ap(num_true: np.ndarray, precision: np.ndarray, num_objects: int) -> float:
    """Mean of the largest precision at recall 0, 0.1, ..., 1 or a higher one."""
    # 9 of 15 do not reach the seventh recall, 0.6000000000000001: the published numbers, and
    # those of the common tools in Python, rest on it.
    recall = num_true / num_objects
    reached = [precision[recall >= point] for point in np.arange(11) * 0.1]
    return float(np.mean([values.max() if len(values) else 0.0 for values in reached]))


_AVERAGE_PRECISION = {"area": _area_ap, "11point": _eleven_point_ap}


def _corners(boxes_xywh: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)


def _box_iou(boxes: np.ndarray, others: np.ndarray, inclusive: bool) -> np.ndarray:
    """(D, G) IoU of boxes (D, 4) and (G, 4), both XYXY; 0 where both are empty."""
    extra = 1.0 if inclusive else 0.0
    upper = np.maximum(boxes[:, None, :2], others[None, :, :2])
    lower = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = (lower - upper + extra).clip(min=0).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2] + extra).clip(min=0).prod(axis=1)
    other_areas = (others[:, 2:] - others[:, :2] + extra).clip(min=0).prod(axis=1)
    union = areas[:, None] + other_areas[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
