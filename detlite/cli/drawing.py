"""``visualize``: draw detections on images, or the annotations of a data set."""

import argparse
import sys
from pathlib import Path

from ..config import load_config
from ..engine import Predictor
from ..engine.drawing import (
    DrawingOptions,
    check_output_folder,
    draw_dataset,
    draw_images,
)
from ..errors import UserError
from ..utils.logger import setup_logger

# Smaller pictures are enlarged by a whole factor, so that labels can be read.
MIN_SIDE = 480


def run_command(arguments: argparse.Namespace) -> None:
    """Do what a checked command line says."""
    setup_logger()
    if not arguments.output:
        raise UserError("--output '' is empty; name a folder, or . for the present one")
    output = Path(arguments.output)
    check_output_folder(output)
    config = None
    if arguments.config_file:
        config = load_config(arguments.config_file, arguments.overrides)
    predictor = None
    if arguments.weights:
        predictor = Predictor(
            arguments.weights,
            config=config,
            device=arguments.device,
            batch_size=arguments.batch_size,
            trust_imports=arguments.trust_imports,
        )
    style = {
        "min_side": MIN_SIDE,
        "labels": arguments.labels,
        "show_scores": not arguments.no_scores,
        "line_width": arguments.line_width,
    }
    options = DrawingOptions(arguments.score_thresh, style)
    if arguments.input:
        assert predictor is not None
        if draw_images(predictor, arguments.input, output, options).unreadable:
            sys.exit(1)
        return
    if config is None:
        assert predictor is not None
        config = predictor.config
    draw_dataset(
        config,
        predictor,
        output,
        options,
        split=arguments.dataset,
        num_images=arguments.num_images,
        augmented=arguments.augmented,
    )
