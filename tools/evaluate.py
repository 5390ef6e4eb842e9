"""Evaluate a COCO results file, from whatever framework, against its annotation file.

    python tools/evaluate.py --annotations gt.json --results dt.json
    python tools/evaluate.py --annotations gt.json --results dt.json --output numbers.json

Boxes only. Prints the twelve numbers with a bootstrap interval of AP, a table of classes and the
confusion matrix; --output writes all of it as JSON.
"""

import argparse
import logging
import time
from pathlib import Path

from detlite import UserError
from detlite.evaluation import ap_interval, coco_arrays, confusion_matrix, evaluate_boxes
from detlite.evaluation.coco_files import read_ground_truth, read_results
from detlite.evaluation.coco_report import (
    class_metrics_table,
    confusion_table,
    report_json,
    summary_table,
)
from detlite.evaluation.reports import write_json
from detlite.utils.cli import run_cli

LEVEL = 0.95


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", required=True, metavar="gt.json", help="the ground truth")
    parser.add_argument("--results", required=True, metavar="dt.json", help="the detections")
    parser.add_argument("--output", metavar="out.json", help="where to write all numbers")
    parser.add_argument(
        "--max-detections", type=int, nargs=3, default=[1, 10, 100], metavar="N",
        help="limits of the detections of a class in an image; default 1 10 100",
    )  # fmt: skip
    parser.add_argument(
        "--bootstrap", type=int, default=1000, metavar="N",
        help="resamples of the images for the 95%% interval of AP, 0 for none; default 1000",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the resamples; default 0")
    parser.add_argument(
        "--score-threshold", type=float, default=0.5, metavar="S",
        help="detections below it are not in the confusion matrix; default 0.5",
    )  # fmt: skip
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Read, evaluate, print, write."""
    _check(arguments)
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


def _check(arguments: argparse.Namespace) -> None:
    limits = arguments.max_detections
    if limits != sorted(set(limits)) or limits[0] < 1:
        raise UserError(f"--max-detections must be three positive ascending numbers, got {limits}")
    if arguments.bootstrap < 0 or arguments.seed < 0:
        raise UserError(
            f"--bootstrap and --seed must not be negative, got {arguments.bootstrap} and "
            f"{arguments.seed}"
        )
    if not 0 <= arguments.score_threshold <= 1:
        raise UserError(f"--score-threshold must be in [0, 1], got {arguments.score_threshold}")


if __name__ == "__main__":
    run_cli(main, parser())
