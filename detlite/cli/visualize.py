"""Draw what a model sees on images, or what a data set is annotated with.

    python tools/visualize.py --weights model_final.pth --input a.jpg folder/ '*.png' --output out/
    python tools/visualize.py --config-file X.yaml --dataset train --augmented --output out/
    python tools/visualize.py --weights model_final.pth --dataset test --output out/
    python tools/visualize.py --weights model.pkl --config-file X.yaml --input a.jpg --output out/

The first also writes predictions.json: class_names, score_thresh, images (file_name, picture,
height, width and detections: class, category, score and bbox as x, y, width, height) and skipped.
The third draws ground truth beside prediction. Of a classifier the likeliest classes are written
onto the picture, and the true one above them. A checkpoint of detlite needs no config; the weights
of another framework need that of their model, see configs/retinanet/README.md.
"""

import argparse

from ..errors import UserError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="a checkpoint of detlite, or a peer's weights with --config-file",
    )
    parser.add_argument("--input", nargs="+", metavar="PATH", help="images, folders, patterns")
    parser.add_argument(
        "--config-file",
        metavar="X.yaml",
        help="the config of the data set, or of the model of a peer's weights",
    )
    parser.add_argument("--dataset", choices=["train", "test"], help="draw data of the config")
    parser.add_argument("--augmented", action="store_true", help="after data.train_transforms")
    parser.add_argument("--num-images", type=int, default=20, help="of the data set; default 20")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--score-thresh", type=float, default=0.5, help="default 0.5")
    parser.add_argument("--batch-size", type=int, default=1, help="images at a time; default 1")
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:1; default auto"
    )
    parser.add_argument(
        "--labels",
        default="auto",
        choices=["auto", "all", "none"],
        help="at the boxes; auto: below the picture instead where they would hide the boxes",
    )
    parser.add_argument("--no-scores", action="store_true", help="labels without scores")
    parser.add_argument(
        "--line-width", type=int, metavar="PIXELS", help="of boxes; default: it fits the picture"
    )
    parser.add_argument(
        "--trust-imports", action="store_true", help="run the files that the checkpoint imports"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="with --config-file")
    return parser


def main(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    _check(arguments)
    # Here and not above: it imports torch, which takes seconds, once the command line is right.
    from .drawing import run_command

    run_command(arguments)


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.input) == bool(arguments.dataset):
        raise UserError("give either --input, images to detect on, or --dataset train|test")
    if arguments.input and not arguments.weights:
        raise UserError("--input needs --weights, the checkpoint of the model that detects")
    if arguments.dataset and not (arguments.config_file or arguments.weights):
        raise UserError("--dataset needs --config-file (or --weights, whose config is taken)")
    if not 0 <= arguments.score_thresh <= 1:
        raise UserError(f"--score-thresh must be in [0, 1], got {arguments.score_thresh}")
    if arguments.batch_size < 1 or arguments.num_images < 1:
        raise UserError("--batch-size and --num-images must be at least 1")
    if arguments.line_width is not None and arguments.line_width < 1:
        raise UserError(f"--line-width must be at least 1, got {arguments.line_width}")
