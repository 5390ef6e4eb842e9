"""Accuracy of a classifier: top-1, top-k, class by class, and which class is taken for which."""

import csv
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from ..ranges import PositiveInt
from ..utils.distributed import gather_objects
from ..utils.tables import fitted_table
from .confusion_picture import write_confusion_picture
from .evaluator import Batch, DatasetEvaluator, Results, in_main_process
from .registries import EVALUATOR_REGISTRY
from .reports import class_table, metrics_table, write_json

logger = logging.getLogger(__name__)

TASK = "classification"
# The metrics of each class are returned, and so drawn as curves, up to so many classes.
_MOST_CURVES = 100
_NUM_CONFUSIONS = 15


class LabelledImages(Protocol):
    """What the evaluator needs of a data set: N images of one of K classes each."""

    @property
    def name(self) -> str:
        """For messages and folders."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names."""

    @property
    def image_ids(self) -> Sequence[Any]:
        """N integers or strings, each once."""

    @property
    def classes(self) -> np.ndarray:
        """(N,) int64 in [0, K)."""


@dataclass(frozen=True)
class Accuracy:
    """What was found, in counts.

    Attributes:
        confusion: (K, K + 1) int64: images by their class (row) and the likeliest class (column);
            the last column counts those without an answer.
        top_k: Images whose class is among the k likeliest.
    """

    confusion: np.ndarray
    top_k: int

    @property
    def num_images(self) -> int:
        """N."""
        return int(self.confusion.sum())

    @property
    def top_1(self) -> int:
        """Images whose class is the likeliest."""
        return int(np.trace(self.confusion))

    def by_class(self) -> np.ndarray:
        """(K,) percent of each class's images that are right; NaN where it has none."""
        totals = self.confusion.sum(axis=1)
        right = np.diag(self.confusion)
        with np.errstate(invalid="ignore"):
            return 100 * right / np.where(totals, totals, np.nan)


@EVALUATOR_REGISTRY.register
class ClassificationEvaluator(DatasetEvaluator):
    """Percent of the images whose class is the likeliest one, or among the k likeliest.

    Of equal scores the first class comes first. An image that no process has seen, or whose scores
    are not all finite, counts as wrong, and a warning says how many there are. One that was seen
    again, here or in another process, counts once.

    ``results.json`` holds the numbers, those of each class and the confusion matrix,
    ``confusion.csv`` and ``confusion.png`` the matrix: classes in rows, what they were taken for
    in columns.

    Args:
        dataset: The images and their classes.
        output_dir: Where files are written; none are without it.
        topk: k of the second metric; with no more classes than that it is left out, being 100.
    """

    task = TASK

    def __init__(
        self,
        *,
        dataset: LabelledImages,
        output_dir: str | os.PathLike[str] | None = None,
        topk: PositiveInt = 5,
    ) -> None:
        self.dataset = dataset
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.topk = topk
        self._index = {image_id: i for i, image_id in enumerate(dataset.image_ids)}
        self.reset()

    def reset(self) -> None:
        """Forget all answers."""
        self._by_image: dict[int, np.ndarray] = {}

    def process(self, inputs: Batch, outputs: Batch) -> None:
        """Collect the likeliest classes of a batch.

        Raises:
            DataError: An image is not in the data set, or there is not one score a class.
        """
        num_classes = len(self.dataset.class_names)
        for entry, output in zip(inputs, outputs, strict=True):
            image = self._index.get(entry["image_id"])
            if image is None:
                raise DataError(
                    f"image {entry['image_id']!r} is not in data set '{self.dataset.name}' of "
                    f"{len(self._index)} images; the loader must read the evaluator's data set"
                )
            scores = output["scores"].detach().float().cpu().numpy()
            if scores.shape != (num_classes,):
                raise DataError(
                    f"scores must have shape ({num_classes},), one a class of data set "
                    f"'{self.dataset.name}', got {scores.shape}; was the model trained on other "
                    "classes?"
                )
            best = np.argsort(-scores, kind="stable")[: max(self.topk, 1)]
            if not np.isfinite(scores).all():
                best = best[:0]
            self._by_image.setdefault(image, best)

    def evaluate(self) -> Results:
        """Gather the answers of all processes and count them in the main one."""
        by_image: dict[int, np.ndarray] = {}
        for part in gather_objects(self._by_image):
            by_image = part | by_image  # the lowest rank wins, so that the result is one
        return in_main_process(lambda: self._score(by_image))

    def _score(self, by_image: dict[int, np.ndarray]) -> Results:
        self._warn(by_image)
        accuracy = self._count(by_image)
        classes = dict(zip(self.dataset.class_names, accuracy.by_class().tolist(), strict=True))
        total = accuracy.num_images
        metrics = {"top1": 100 * accuracy.top_1 / total}
        if len(classes) > self.topk > 1:
            metrics[f"top{self.topk}"] = 100 * accuracy.top_k / total
        metrics["mean_class"] = float(np.nanmean(list(classes.values())))
        if len(classes) <= _MOST_CURVES:
            metrics |= {f"top1-{name}": value for name, value in classes.items()}
        self._log(metrics, classes, accuracy)
        if self.output_dir is not None:
            self._write(self.output_dir, metrics, classes, accuracy)
        return {TASK: metrics}

    def _count(self, by_image: dict[int, np.ndarray]) -> Accuracy:
        num_classes = len(self.dataset.class_names)
        confusion = np.zeros((num_classes, num_classes + 1), np.int64)
        top_k = 0
        nothing = np.zeros(0, np.int64)
        for i, gt_class in enumerate(self.dataset.classes.tolist()):
            best = by_image.get(i, nothing)
            confusion[gt_class, best[0] if len(best) else num_classes] += 1
            top_k += gt_class in best
        return Accuracy(confusion, int(top_k))

    def _warn(self, by_image: dict[int, np.ndarray]) -> None:
        missing = [key for key, image in self._index.items() if image not in by_image]
        broken = [image for image, best in by_image.items() if not len(best)]
        for images, what in (
            (missing, "were not seen"),
            ([self.dataset.image_ids[i] for i in broken], "have scores that are NaN or infinite"),
        ):
            if images:
                logger.warning(
                    "%d of the %d images of '%s' %s, e.g. %r; they count as wrong",
                    len(images),
                    len(self._index),
                    self.dataset.name,
                    what,
                    images[0],
                )

    def _log(
        self, metrics: dict[str, float], classes: dict[str, float], accuracy: Accuracy
    ) -> None:
        totals = accuracy.confusion.sum(axis=1).tolist()
        rows = [[name, count, classes[name]] for name, count in zip(classes, totals, strict=True)]
        confused = _most_confused(accuracy.confusion, list(classes))
        summary = {name: value for name, value in metrics.items() if not name.startswith("top1-")}
        logger.info(
            "accuracy on '%s', percent of %d images:\n%s\n%s%s",
            self.dataset.name,
            accuracy.num_images,
            metrics_table(summary),
            class_table(["class", "images", "top1"], rows),
            f"\nmost often confused:\n{confused}" if confused else "",
        )

    def _write(
        self, folder: Path, metrics: dict[str, float], classes: dict[str, float], accuracy: Accuracy
    ) -> None:
        names = list(classes)
        write_json(
            folder / "results.json",
            {
                TASK: metrics,
                "num_images": accuracy.num_images,
                "classes": classes,
                "confusion": accuracy.confusion.tolist(),
            },
        )
        with open(folder / "confusion.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["class", *names, "no answer"])
            for name, row in zip(names, accuracy.confusion.tolist(), strict=True):
                writer.writerow([name, *row])
        write_confusion_picture(folder / "confusion.png", accuracy.confusion[:, :-1], names)


def _most_confused(confusion: np.ndarray, names: list[str]) -> str:
    """The commonest confusions as a table; "" if there are none."""
    wrong = confusion[:, :-1].copy()
    np.fill_diagonal(wrong, 0)
    totals = confusion.sum(axis=1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_NUM_CONFUSIONS]
    rows = [
        [names[a], names[b], int(wrong[a, b]), f"{100 * wrong[a, b] / totals[a]:.1f} %"]
        for a, b in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[a, b]
    ]
    columns = ["class", "taken for", "times", "of its images"]
    if not rows:
        return ""
    return fitted_table(rows, columns, num_keys=2, tablefmt="pipe", numalign="left")
