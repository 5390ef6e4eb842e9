"""Evaluate a COCO results file; the command line is that of detlite/cli/evaluate.py."""

from detlite.cli.evaluate import main, parser
from detlite.utils.cli import run_cli

if __name__ == "__main__":
    run_cli(main, parser())
