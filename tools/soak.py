"""Kill a training again and again, and see that it ends in the same bits as if nothing had been.

python tools/soak.py                                  # 30 kills, for 0, 1 and 2 data workers each
python tools/soak.py --kills 6 --during-checkpoint 2 --workers 1
python tools/soak.py --processes 2                    # under torchrun, one of two processes killed
python tools/soak.py --config-file X.yaml solver.max_iter=200 train.checkpoint_period=10

Kills are SIGKILL, at random moments: while a checkpoint is being written (only those count of which
an unfinished file is left behind), while the process starts, reads its first batch, evaluates,
ends, and anywhere else. Each time the training is started again with --resume. In the end all
checkpoints, the metrics and every step's images and loss are compared with those of one run that
nobody killed. Exits with 0 if all of them are equal, else with 1.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from detlite import ConfigError
from detlite.utils.cli import run_cli


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config-file", metavar="X.yaml", help="another config than a tiny form of the quickstart"
    )
    parser.add_argument("--kills", type=int, default=30, help="of each run")
    parser.add_argument(
        "--during-checkpoint", type=int, default=10, help="of them while a checkpoint is written"
    )
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[0, 1, 2],
        help="data workers; a run each (put overrides before this option)",
    )
    parser.add_argument("--processes", type=int, default=1, help="more than 1: under torchrun")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", metavar="DIR", help="where the runs are left, and their logs")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="values that override the config's"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    # Before torch is imported: every process of it computes with one thread, the same sums in the
    # same order, and threads would not survive a fork.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Here and not above: it imports torch, which takes seconds, once the command line is right.
    from soaking.moments import SoakFailure
    from soaking.proof import soak

    if not 0 <= arguments.during_checkpoint <= arguments.kills:
        raise ConfigError(
            f"--during-checkpoint {arguments.during_checkpoint} must be 0 to --kills, which is "
            f"{arguments.kills}"
        )
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="soak_")).absolute()
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--folder {folder} is not empty; give a new one")
    start = time.monotonic()
    try:
        problems = soak(arguments, folder)
    except SoakFailure as failure:
        problems = [str(failure)]
    for problem in problems[:20]:
        print(f"DIFFERENT: {problem}")
    if problems:
        print(f"FAILED, {len(problems)} problems; the runs and their logs are in {folder}")
        sys.exit(1)
    print(f"EXACT: all runs ended in the same bits, in {time.monotonic() - start:.0f} s")
    if not arguments.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    run_cli(main, parser())
