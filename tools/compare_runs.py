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

from tabulate import tabulate

from detlite import UserError
from detlite.engine.run_table import (
    RunRow,
    check_metric,
    differing_keys,
    find_runs,
    sort_runs,
)
from detlite.utils.cli import run_cli

VALIDATION_LOSS = "val/total_loss"
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
    runs = find_runs(arguments.folders)
    check_metric(runs, arguments.metric)
    runs = sort_runs(runs, arguments.metric)
    differing = differing_keys(runs)
    keys = differing if arguments.keys is None else arguments.keys.split(",")
    shown = keys if arguments.keys is not None else keys[:MAX_KEYS]
    rows = [row(run, arguments.metric, shown) for run in runs]
    print(tabulate(rows, headers="keys", disable_numparse=True))
    if len(shown) < len(keys):
        rest = ", ".join(keys[MAX_KEYS:])
        print(f"\nThe configs differ in {len(keys) - len(shown)} more keys (--keys, --csv): {rest}")
    if arguments.csv:
        try:
            write_csv(arguments.csv, [row(run, arguments.metric, keys) for run in runs])
        except OSError as error:
            raise UserError(f"--csv {arguments.csv} cannot be written: {error}") from None


def row(run: RunRow, metric: str, keys: list[str]) -> dict[str, str]:
    """The cells of a run, by the names of the columns."""
    best, at = run.best.get(metric, (None, None))
    cells = {
        "run": run.name,
        "status": run.status,
        "iterations": f"{run.iterations}/{run.max_iter or '?'}",
        "time": time_text(run.seconds),
        f"best {metric}": number(best),
        "at": "-" if at is None else str(at),
        f"final {metric}": number(run.final.get(metric)),
    }
    if metric != VALIDATION_LOSS:
        cells[VALIDATION_LOSS] = number(run.final.get(VALIDATION_LOSS))
    return cells | {key: str(run.config.get(key, "-")) for key in keys}


def number(value: float | None) -> str:
    """A value, or a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def time_text(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    if seconds is None:
        return "-"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def write_csv(path: str, rows: list[dict[str, str]]) -> None:
    """Write rows of one set of columns."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    run_cli(main, parser())
