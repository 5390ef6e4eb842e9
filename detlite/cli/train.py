"""Train and evaluate the model of a config.

python tools/train_net.py --config-file configs/quickstart.yaml
python tools/train_net.py --config-file X.yaml --resume solver.max_iter=20000
python tools/train_net.py --config-file X.yaml --eval-only --weights model_final.pth
python tools/train_net.py --config-file X.yaml --eval-only --weights detectron2://.../model_final.pkl
python tools/train_net.py --config-file X.yaml --print-config
python tools/train_net.py --config-file X.yaml --check-resume
torchrun --nproc-per-node=8 tools/train_net.py --config-file X.yaml --resume

SIGTERM and Ctrl-C end a run after the step, with a checkpoint and exit code 75; --resume goes on.
SIGUSR1 writes a checkpoint. docs/training.md tells what survives what.
"""

import argparse


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="X.yaml", help="the config")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last good checkpoint in output_dir, if there is one",
    )
    parser.add_argument(
        "--check-resume",
        action="store_true",
        help="train a few iterations in a temporary folder with and without an interruption, and "
        "compare every bit",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate, do not train")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="a path, a URL or a published name; the same as model.weights=FILE",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the resolved config, with the place that each value comes from, and stop",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew in an output_dir that holds a run"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="values that override the config's"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    # Here and not above: it imports torch, which takes seconds, once the command line is right.
    from .training import run_command

    run_command(arguments)
