"""Draw detections or annotations; the command line is that of detlite/cli/visualize.py."""

from detlite.cli.visualize import main, parser
from detlite.utils.cli import run_cli

if __name__ == "__main__":
    run_cli(main, parser())
