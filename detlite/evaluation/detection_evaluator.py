"""What evaluators of boxes share: collect detections by image, gather them, score them once."""

import logging
import os
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from ..structures import Instances
from ..utils.distributed import gather_objects
from .evaluator import Batch, DatasetEvaluator, Results, in_main_process
from .ground_truth import GroundTruth

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detections:
    """The detections of one image, in the order in which the model gave them.

    Attributes:
        boxes: (D, 4) float64 XYXY in pixels of the original image.
        scores: (D,) float64.
        classes: (D,) int64.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    @classmethod
    def from_instances(cls, instances: Instances) -> "Detections":
        """Copy ``pred_boxes``, ``scores`` and ``pred_classes`` from whatever device they are on."""
        return cls(
            _to_numpy(instances.pred_boxes, torch.float64).reshape(-1, 4),
            _to_numpy(instances.scores, torch.float64),
            _to_numpy(instances.pred_classes, torch.int64),
        )

    def finite(self) -> "Detections":
        """Those whose box and score are finite numbers."""
        keep = np.isfinite(self.boxes).all(axis=1) & np.isfinite(self.scores)
        return Detections(self.boxes[keep], self.scores[keep], self.classes[keep])

    def __len__(self) -> int:
        return len(self.scores)


class DetectionEvaluator(DatasetEvaluator):
    """The base of evaluators that compare boxes with ground truth.

    Each image of the data set counts once: of an image that was seen again, in this process or in
    another one, the first detections stay. An image that no process has seen counts as one in
    which nothing was found, as on COCO's server, and a warning says how many there are. Detections
    that are not finite are dropped, with a warning: no box can be matched to them.

    Args:
        dataset: The ground truth.
        output_dir: Where files are written; none are without it.
    """

    task = "detection"

    def __init__(self, dataset: GroundTruth, output_dir: str | os.PathLike[str] | None) -> None:
        self.dataset = dataset
        self.output_dir = None if output_dir is None else Path(output_dir)
        self._index = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
        self.reset()

    @abstractmethod
    def score(self, detections: list[Detections]) -> Results:
        """Turn detections, one entry an image of the data set, into numbers; log and write them.

        Called in the main process only.
        """

    def reset(self) -> None:
        """Forget all detections."""
        self._by_image: dict[int, Detections] = {}
        self._num_dropped = 0

    def process(self, inputs: Batch, outputs: Batch) -> None:
        """Collect the detections of a batch.

        Raises:
            DataError: An image or a class is not in the data set.
        """
        for entry, output in zip(inputs, outputs, strict=True):
            image = self._index.get(entry["image_id"])
            if image is None:
                raise DataError(
                    f"image {entry['image_id']!r} is not in data set '{self.dataset.name}' of "
                    f"{len(self._index)} images; the loader must read the evaluator's data set"
                )
            if image in self._by_image:
                continue
            found = Detections.from_instances(output["instances"])
            self._check_classes(found.classes)
            self._by_image[image] = found.finite()
            self._num_dropped += len(found) - len(self._by_image[image])

    def evaluate(self) -> Results:
        """Gather the detections of all processes and score them in the main one."""
        by_image: dict[int, Detections] = {}
        num_dropped = 0
        for part, dropped in gather_objects((self._by_image, self._num_dropped)):
            by_image = part | by_image  # the lowest rank wins, so that the result is one
            num_dropped += dropped
        return in_main_process(lambda: self._score_all(by_image, num_dropped))

    def _score_all(self, by_image: dict[int, Detections], num_dropped: int) -> Results:
        if num_dropped:
            logger.warning("%d detections with a NaN or infinity were dropped", num_dropped)
        missing = [key for key, image in self._index.items() if image not in by_image]
        if missing:
            logger.warning(
                "%d of the %d images of '%s' were not seen, e.g. %r; their objects count as missed",
                len(missing),
                len(self._index),
                self.dataset.name,
                missing[0],
            )
        nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
        return self.score([by_image.get(i, nothing) for i in range(len(self._index))])

    def _check_classes(self, classes: np.ndarray) -> None:
        names = self.dataset.class_names
        wrong = classes[(classes < 0) | (classes >= len(names))]
        if len(wrong):
            raise DataError(
                f"pred_classes must lie in [0, {len(names)}), the classes of data set "
                f"'{self.dataset.name}', got {wrong[0]}; was the model trained on other classes?"
            )


def _to_numpy(values: Any, dtype: torch.dtype) -> np.ndarray:
    return torch.as_tensor(values).detach().to("cpu", dtype, copy=True).numpy()
