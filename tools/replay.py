"""Repeat the step at which a loss or gradient became NaN or infinite, and say where it arose.

python tools/replay.py output/run/non_finite/iter_0001234_rank0
python tools/replay.py BUNDLE_DIR --device cpu --trust-imports

Exit code 0: the step came out as recorded; 1: it did not; 2: the bundle cannot be used.
"""

import argparse
import sys

from detlite.utils.cli import run_cli
from detlite.utils.logger import setup_logger


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", metavar="BUNDLE_DIR", help="a folder that a run has written")
    parser.add_argument(
        "--device", default="", choices=["auto", "cpu", "cuda"], help="default: where it ran"
    )
    parser.add_argument(
        "--trust-imports",
        action="store_true",
        help="run the files that the bundle's config imports",
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    # Here and not above: it imports torch, which takes seconds, once the command line is right.
    from detlite.engine.replay import read_bundle, replay

    setup_logger()
    result = replay(
        read_bundle(arguments.bundle),
        device=arguments.device,
        trust_imports=arguments.trust_imports,
    )
    print(result.text())
    if not result.reproduced:
        sys.exit(1)


if __name__ == "__main__":
    run_cli(main, parser())
