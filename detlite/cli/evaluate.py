"""Evaluate a COCO results file, from whatever framework, against its annotation file.

    python tools/evaluate.py --annotations gt.json --results dt.json
    python tools/evaluate.py --annotations gt.json --results dt.json --output numbers.json

Boxes only. Prints the twelve numbers with a bootstrap interval of AP, a table of classes and the
confusion matrix; --output writes all of it as JSON.
"""

import argparse

from ..errors import UserError


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
    """Do what the command line says."""
    _check(arguments)
    # Here and not above: numpy and the rest are imported once the command line is right.
    from .scoring import run_command

    run_command(arguments)


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
