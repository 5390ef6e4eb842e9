"""Measure detlite beside its peers, both in one run; quote the ratio, not the times.

python tools/benchmark.py ops         # NMS, IoU, matching, focal loss
python tools/benchmark.py coco-eval   # COCO evaluation of half a million detections
python tools/benchmark.py model       # RetinaNet R50-FPN: inference and a training step
python tools/benchmark.py classification    # a classifier: its data and a training iteration
python tools/benchmark.py training    # what checkpoints, hooks and a resume cost a run
python tools/benchmark.py import      # what detlite adds to torch and torchvision
"""

import argparse
import importlib

from tabulate import tabulate

from detlite.utils.cli import run_cli

BENCHMARKS = {
    "ops": "benchmarks.ops",
    "coco-eval": "benchmarks.coco_eval",
    "model": "benchmarks.model",
    "classification": "benchmarks.classification",
    "training": "benchmarks.training",
    "import": "benchmarks.imports",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(BENCHMARKS))
    parser.add_argument("--repeat", type=int, default=5, help="runs of each; the median counts")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Run a benchmark and print its table."""
    # Here and not above: it imports torch, which takes seconds, once the command line is right.
    from detlite.utils.env import environment

    facts = environment()
    named = ("processor", "cores", "python", "torch", "torchvision", "torch threads", "GPU")
    print(", ".join(f"{name} {facts[name]}" for name in named))
    # Each imports its own peers.
    rows = importlib.import_module(BENCHMARKS[arguments.what]).run(arguments.repeat)
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3f"))


if __name__ == "__main__":
    run_cli(main, parser())
