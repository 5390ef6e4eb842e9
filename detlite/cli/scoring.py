"""Evaluating a results file as the command line says it; needs no torch."""

import argparse
import logging
import time
from pathlib import Path

from ..errors import UserError
from ..evaluation import ap_interval, coco_arrays, confusion_matrix, evaluate_boxes
from ..evaluation.coco_files import read_ground_truth, read_results
from ..evaluation.coco_report import (
    class_metrics_table,
    confusion_table,
    report_json,
    summary_table,
)
from ..evaluation.reports import write_json

LEVEL = 0.95


def run_command(arguments: argparse.Namespace) -> None:
    """Read, evaluate, print, write."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    start = time.perf_counter()
    arrays = coco_arrays(read_ground_truth(arguments.annotations), read_results(arguments.results))
    evaluation = evaluate_boxes(arrays, max_detections=arguments.max_detections)
    interval = None
    if arguments.bootstrap:
        interval = ap_interval(
            evaluation.matches, num_resamples=arguments.bootstrap, level=LEVEL, seed=arguments.seed
        )
    confusion = confusion_matrix(
        arrays,
        score_threshold=arguments.score_threshold,
        max_detections=arguments.max_detections[-1],
    )
    names = dict(zip(arrays.category_ids, arrays.class_names, strict=True))
    print(
        f"{len(arrays.image_ids):,} images, {len(arrays.gt_areas):,} annotations, "
        f"{len(arrays.scores):,} detections, {time.perf_counter() - start:.2f} s\n"
    )
    print(summary_table(evaluation.metrics, interval))
    print(
        "\nby class, in percent; F1, P and R at IoU 0.5 and the score threshold of greatest F1:\n"
    )
    print(class_metrics_table(evaluation.metrics, names))
    print(
        f"\nconfusion of classes at IoU {confusion.iou_threshold:g}, "
        f"detections of score {confusion.score_threshold:g} or more:\n"
    )
    print(confusion_table(confusion, list(arrays.class_names)))
    if arguments.output:
        _write(Path(arguments.output), report_json(evaluation, interval, confusion))


def _write(path: Path, report: dict[str, object]) -> None:
    try:
        write_json(path, report)
    except OSError as error:
        raise UserError(f"cannot write --output '{path}': {error.strerror}") from None
    print(f"\nwritten to {path}")
