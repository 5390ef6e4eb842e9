"""Box AP and AR as COCO defines them (Lin et al. 2014, https://cocodataset.org/#detection-eval)."""

import logging
import os
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..ranges import PositiveInt
from .coco_metrics import CocoMetrics, coco_box_metrics
from .detection_evaluator import DetectionEvaluator, Detections
from .evaluator import Results
from .ground_truth import GroundTruth
from .registries import EVALUATOR_REGISTRY
from .reports import class_table, metrics_table, write_json

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
        per_class: Whether to return "AP-<class>" and to log a table of classes.
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
        """Evaluate with pycocotools; log the tables, write the files."""
        found = results_json(self.dataset, detections)
        if self.output_dir is not None:
            write_json(self.output_dir / "coco_instances_results.json", found)
        metrics = coco_box_metrics(
            ground_truth_json(self.dataset), found, max_detections=self.max_detections
        )
        values = dict(metrics.summary)
        if self.per_class:
            named = zip(self.dataset.class_names, self.dataset.category_ids.tolist(), strict=True)
            values |= {f"AP-{name}": metrics.class_ap[category] for name, category in named}
        self._log(metrics)
        results = {"bbox": values}
        if self.output_dir is not None:
            write_json(self.output_dir / "results.json", results)
        return results

    def _log(self, metrics: CocoMetrics) -> None:
        name = self.dataset.name
        logger.info("box AP and AR of '%s' in percent:\n%s", name, metrics_table(metrics.summary))
        if not self.per_class:
            return
        ids = self.dataset.category_ids.tolist()
        rows = [
            [class_name, metrics.class_ap[category], metrics.class_ap50[category]]
            for class_name, category in zip(self.dataset.class_names, ids, strict=True)
        ]
        table = class_table(["class", "AP", "AP50"], rows)
        logger.info("box AP of '%s' by class in percent:\n%s", name, table)


def results_json(dataset: GroundTruth, detections: list[Detections]) -> list[dict[str, Any]]:
    """Detections, one entry an image of the data set, in the form of COCO's results file.

    Boxes are rounded to thousandths of a pixel. That is where float32 ends in a large image: an
    edge of 158.15 is again 158.15, not 158.1499939, and an IoU on a threshold stays on it.
    """
    categories = dataset.category_ids.tolist()
    results = []
    for image_id, found in zip(_plain(dataset.image_ids), detections, strict=True):
        boxes = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], 1)
        boxes = boxes.round(3)
        results += [
            {"image_id": image_id, "category_id": categories[c], "bbox": box, "score": score}
            for c, box, score in zip(
                found.classes.tolist(), boxes.tolist(), found.scores.tolist(), strict=True
            )
        ]
    return results


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
