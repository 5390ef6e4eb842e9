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

import torch

from detlite import Config, UserError
from detlite.config import load_config
from detlite.data import build_datasets
from detlite.modeling import MetaArch, build_meta_arch
from detlite.solver import scale_to_batch
from detlite.solver.preview import draw_preview, preview_schedule, preview_table, write_csv
from detlite.utils.cli import run_cli
from detlite.utils.logger import setup_logger

logger = logging.getLogger("detlite.plot_schedule")

# Of COCO. The number of classes changes sizes of tensors, no rate.
CLASSES_WITHOUT_DATA = 80


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
    setup_logger()
    # Its table of the parameter groups is part of what is printed below.
    logging.getLogger("detlite.solver.optimizer").setLevel(logging.WARNING)
    config = scale_to_batch(load_config(arguments.config_file, arguments.overrides))
    class_names, images = training_data(config)
    preview = preview_schedule(config, build_without_weights(config, class_names), images)
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


def training_data(config: Config) -> tuple[list[str], int | None]:
    """The names of the classes, and the images of an epoch; names made up if there is no data."""
    try:
        datasets = build_datasets(config.data.train, "data.train")
    except UserError as error:
        logger.warning("the training data cannot be counted, so there are no epochs: %s", error)
        return [str(i) for i in range(config.data.num_classes or CLASSES_WITHOUT_DATA)], None
    keep_empty = config.data.keep_empty_images
    images = sum(
        len(data) if keep_empty else int((data.num_training_boxes() > 0).sum()) for data in datasets
    )
    return list(datasets[0].class_names), images or None


def build_without_weights(config: Config, class_names: list[str]) -> MetaArch:
    """The model, if possible on the meta device, where it costs neither memory nor time."""
    try:
        with torch.device("meta"):
            return build_meta_arch(config.model, class_names)
    except (NotImplementedError, RuntimeError):
        # A component that computes with the values of tensors while it is built.
        return build_meta_arch(config.model, class_names)


if __name__ == "__main__":
    run_cli(main, parser())
