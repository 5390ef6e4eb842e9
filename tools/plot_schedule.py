"""Draw what a config does to the learning rates before it is trained.

python tools/plot_schedule.py --config-file configs/retinanet/retinanet_r50_fpn_3x_coco.yaml
python tools/plot_schedule.py --config-file X.yaml --output x.svg solver.layer_decay=0.9
python tools/plot_schedule.py --config-file X.yaml --csv x.csv data.batch_size=4

Rates of each parameter group, momentum, weight decay, the moving average, evaluations and
checkpoints, by the optimizer and the schedule that the run will have. Needs matplotlib for the
picture; no weights, and no data: without it there are iterations, but no epochs.
"""

import argparse
import logging

from detlite import UserError
from detlite.utils.cli import run_cli
from detlite.utils.logger import setup_logger


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="X.yaml", help="the config")
    parser.add_argument(
        "--output",
        default="schedule.png",
        metavar="FILE",
        help="the picture, schedule.png if not given; .svg and .pdf work as well",
    )
    parser.add_argument("--csv", metavar="FILE", help="write a row for each iteration as well")
    parser.add_argument("--no-picture", action="store_true", help="print the table only")
    parser.add_argument(
        "--scale",
        choices=("auto", "linear", "log"),
        default="auto",
        help="axis of the learning rate; auto is log where the rate jumps",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="values that override the config's"
    )
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Step through the schedule, print, draw."""
    # Here and not above: it imports torch, which takes seconds, once the command line is right.
    from detlite import load_config
    from detlite.engine.run_preview import preview_run
    from detlite.solver.preview import draw_preview, preview_table, write_csv

    setup_logger()
    # Its table of the parameter groups is part of what is printed below.
    logging.getLogger("detlite.solver.optimizer").setLevel(logging.WARNING)
    preview = preview_run(load_config(arguments.config_file, arguments.overrides))
    print(preview_table(preview))
    if arguments.csv:
        try:
            write_csv(preview, arguments.csv)
        except OSError as error:
            raise UserError(f"--csv {arguments.csv} cannot be written: {error}") from None
        print(f"wrote {arguments.csv}")
    if not arguments.no_picture:
        draw_preview(
            preview,
            arguments.output,
            title=f"{arguments.config_file}: {preview.optimizer}",
            scale=arguments.scale,
        )
        print(f"wrote {arguments.output}")


if __name__ == "__main__":
    run_cli(main, parser())
