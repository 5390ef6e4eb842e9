"""One row a run: how far it came, how good it is, and where its config differs from the others'.

python tools/compare_runs.py output/
python tools/compare_runs.py output/ /mnt/old/output --metric val/total_loss
python tools/compare_runs.py output/ --keys solver.optimizer.lr,data.batch_size --csv runs.csv

Runs that still go on are read too.
"""

import argparse
import csv
import sys
from pathlib import Path

from detlite import UserError
from detlite.utils.cli import run_cli
from detlite.utils.tables import fitted_table, wrapped

MAX_KEYS = 8


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", help="output_dir of runs, or folders above them")
    parser.add_argument(
        "--metric", default="bbox/AP", help="what runs are sorted by (default: %(default)s)"
    )
    parser.add_argument(
        "--keys",
        metavar="a.b,c.d",
        help="config keys to show; by default those in which the runs differ",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the table there too, with all columns")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Find the runs, print the table."""
    # Here and not above: it imports torch, which takes seconds, once the command line is right.
    from detlite.engine.run_table import cells, check_metric, differing_keys, find_runs, sort_runs

    runs = find_runs(arguments.folders)
    check_metric(runs, arguments.metric)
    runs = sort_runs(runs, arguments.metric)
    differing = differing_keys(runs)
    keys = differing if arguments.keys is None else arguments.keys.split(",")
    shown = keys if arguments.keys is not None else keys[:MAX_KEYS]
    rows = [cells(run, arguments.metric, shown) for run in runs]
    print(fitted_table([[*row.values()] for row in rows], [*rows[0]], disable_numparse=True))
    if len(shown) < len(keys):
        rest = ", ".join(keys[MAX_KEYS:])
        told = f"The configs differ in {len(keys) - len(shown)} more keys (--keys, --csv): {rest}"
        print("\n" + wrapped(told, indent=""))
    if arguments.csv:
        try:
            write_csv(arguments.csv, [cells(run, arguments.metric, keys) for run in runs])
        except OSError as error:
            raise UserError(f"--csv {arguments.csv} cannot be written: {error}") from None


def write_csv(path: str, rows: list[dict[str, str]]) -> None:
    """Write rows of one set of columns."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    run_cli(main, parser())
