"""Box AP and AR as COCO defines them (Lin et al. 2014, https://cocodataset.org/#detection-eval)."""

import logging
import os
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..ranges import PositiveInt
from .coco_arrays import CocoArrays
from .coco_metrics import CocoMetrics, evaluate_boxes
from .coco_report import class_metrics_table
from .detection_evaluator import DetectionEvaluator, Detections
from .evaluator import Results
from .ground_truth import GroundTruth
from .registries import EVALUATOR_REGISTRY
from .reports import metrics_table, write_json

logger = logging.getLogger(__name__)


@EVALUATOR_REGISTRY.register
class COCOEvaluator(DetectionEvaluator):
    """COCO's twelve numbers, in percent, under "bbox"; NaN where there is no ground truth.

    Every image of the data set counts once; one that was not seen counts as one in which nothing
    was found. Crowd boxes and areas are those of the annotation file, ``difficult`` has no meaning
    here. Writes ``coco_instances_results.json``, which COCO's server takes, and ``results.json``,
    in which null stands for NaN.

    Args:
        dataset: The ground truth.
        output_dir: Where the two files are written; none are without it.
        max_detections: Three limits of the detections of a class in an image, ascending: AR is
            given for each, AP uses the last.
        per_class: Whether to return "AP-<class>", "AP50-<class>" and "AR-<class>", and to log a
            table of classes.
    """

    def __init__(
        self,
        *,
        dataset: GroundTruth,
        output_dir: str | os.PathLike[str] | None = None,
        max_detections: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 10, 100),
        per_class: bool = True,
    ) -> None:
        super().__init__(dataset, output_dir)
        limits = list(max_detections)
        if len(limits) != 3 or limits != sorted(set(limits)) or limits[0] < 1:
            raise ConfigError(
                f"max_detections must be three positive ascending numbers, got {limits}"
            )
        self.max_detections = limits
        self.per_class = per_class

    def score(self, detections: list[Detections]) -> Results:
        """Evaluate; log the tables, write the files."""
        arrays = evaluation_arrays(self.dataset, detections)
        if self.output_dir is not None:
            found = results_json(self.dataset, detections)
            write_json(self.output_dir / "coco_instances_results.json", found)
        metrics = evaluate_boxes(arrays, max_detections=self.max_detections).metrics
        values = dict(metrics.summary)
        if self.per_class:
            values = metrics.flat(self._names())
        self._log(metrics)
        results = {"bbox": values}
        if self.output_dir is not None:
            write_json(self.output_dir / "results.json", results)
        return results

    def _names(self) -> dict[int, str]:
        """The class names by category id, in the order of the classes."""
        return dict(zip(self.dataset.category_ids.tolist(), self.dataset.class_names, strict=True))

    def _log(self, metrics: CocoMetrics) -> None:
        name = self.dataset.name
        logger.info("box AP and AR of '%s' in percent:\n%s", name, metrics_table(metrics.summary))
        if self.per_class:
            table = class_metrics_table(metrics, self._names())
            logger.info(
                "boxes of '%s' by class in percent; F1, P and R at IoU 0.5 and the score threshold "
                "of greatest F1:\n%s",
                name,
                table,
            )


def evaluation_arrays(dataset: GroundTruth, detections: list[Detections]) -> CocoArrays:
    """A data set and detections, one entry an image of it, as the evaluation takes them.

    Images and classes come in the order of their ids, boxes as ``results_json`` writes them.
    """
    image_ids, categories = _plain(dataset.image_ids), dataset.category_ids.tolist()
    image_order, class_order = _ascending(image_ids), _ascending(categories)
    image_place, class_place = (np.argsort(x).astype(np.int32) for x in (image_order, class_order))
    image_of_box = np.repeat(np.arange(len(image_ids)), np.diff(dataset.offsets))
    image_of_detection = np.repeat(np.arange(len(image_ids)), [len(x) for x in detections])
    return CocoArrays(
        image_ids=[image_ids[i] for i in image_order],
        category_ids=[categories[k] for k in class_order],
        class_names=[dataset.class_names[k] for k in class_order],
        gt_boxes=np.ascontiguousarray(dataset.boxes_xywh, np.float64),
        gt_areas=np.asarray(dataset.areas, np.float64),
        gt_crowd=dataset.crowd.astype(np.uint8),
        gt_images=image_place[image_of_box],
        gt_classes=class_place[dataset.classes],
        boxes=_rounded_xywh(np.concatenate([np.zeros((0, 4)), *(x.boxes for x in detections)])),
        scores=np.concatenate([np.zeros(0), *(x.scores for x in detections)]),
        images=image_place[image_of_detection],
        classes=class_place[np.concatenate([np.zeros(0, int), *(x.classes for x in detections)])],
    )


def results_json(dataset: GroundTruth, detections: list[Detections]) -> list[dict[str, Any]]:
    """Detections, one entry an image of the data set, in the form of COCO's results file."""
    categories = dataset.category_ids.tolist()
    results = []
    for image_id, found in zip(_plain(dataset.image_ids), detections, strict=True):
        boxes = _rounded_xywh(found.boxes)
        results += [
            {"image_id": image_id, "category_id": categories[c], "bbox": box, "score": score}
            for c, box, score in zip(
                found.classes.tolist(), boxes.tolist(), found.scores.tolist(), strict=True
            )
        ]
    return results


def _rounded_xywh(boxes: np.ndarray) -> np.ndarray:
    """Boxes XYXY (D, 4) as XYWH, rounded to thousandths of a pixel.

    That is where float32 ends in a large image: an edge of 158.15 is again 158.15, not
    158.1499939, and an IoU on a threshold stays on it.
    """
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).round(3)


def _ascending(ids: list[Any]) -> list[int]:
    return sorted(range(len(ids)), key=ids.__getitem__)


def ground_truth_json(dataset: GroundTruth) -> dict[str, list[dict[str, Any]]]:
    """A data set in the form of COCO's annotation file, without polygons."""
    image_ids = _plain(dataset.image_ids)
    categories = dataset.category_ids.tolist()
    image_of_box = np.repeat(np.arange(len(image_ids)), np.diff(dataset.offsets)).tolist()
    columns = (
        dataset.annotation_ids,
        dataset.classes,
        dataset.boxes_xywh,
        dataset.areas,
        dataset.crowd,
    )
    return {
        "images": [
            {"id": image_id, "height": height, "width": width}
            for image_id, height, width in zip(
                image_ids, dataset.heights.tolist(), dataset.widths.tolist(), strict=True
            )
        ],
        "categories": [
            {"id": category, "name": name}
            for category, name in zip(categories, dataset.class_names, strict=True)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image_ids[image],
                "category_id": categories[k],
                "bbox": box,
                "area": area,
                "iscrowd": int(crowd),
            }
            for image, number, k, box, area, crowd in zip(
                image_of_box, *(column.tolist() for column in columns), strict=True
            )
        ],
    }


def _plain(image_ids: Any) -> list[Any]:
    """As Python's own integers or strings, which JSON can write."""
    return [key.item() if isinstance(key, np.generic) else key for key in image_ids]
