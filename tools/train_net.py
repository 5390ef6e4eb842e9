"""Train and evaluate the model of a config; the command line is that of detlite/cli/train.py."""

from detlite.cli.train import main, parser
from detlite.utils.cli import run_cli

if __name__ == "__main__":
    run_cli(main, parser())
