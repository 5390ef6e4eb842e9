"""Drawing what a model sees, or what data are annotated with, as the command line says it."""

import argparse
import glob
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..config import Config, load_config
from ..data import TrainingData, build_datasets, build_transforms, read_image
from ..data.samplers import SamplePosition
from ..engine import Predictor
from ..errors import DataError, UserError
from ..utils.logger import setup_logger
from ..visualization import (
    Found,
    Visualizer,
    draw_beside_truth,
    draw_found,
    draw_truth,
    write_picture,
)

logger = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
# Smaller pictures are enlarged by a whole factor, so that labels can be read.
MIN_SIDE = 480


def run_command(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    setup_logger()
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
    output = Path(arguments.output)
    if arguments.input:
        assert predictor is not None
        draw_images(predictor, arguments.input, output, arguments.score_thresh)
        return
    if config is None:
        assert predictor is not None
        config = predictor.config
    draw_dataset(config, predictor, output, arguments)


def draw_images(predictor: Predictor, inputs: list[str], output: Path, score_thresh: float) -> None:
    """Draw detections on every image that the inputs name, in batches."""
    paths = find_images(inputs)
    names = _picture_names(paths)
    unreadable = []
    drawn = 0
    for begin in range(0, len(paths), predictor.batch_size):
        images = {}
        for path in paths[begin : begin + predictor.batch_size]:
            try:
                images[path] = read_image(path)
            except DataError as error:
                unreadable.append(path)
                logger.error("%s", error)
        for (path, image), found in zip(images.items(), predictor([*images.values()]), strict=True):
            visualizer = Visualizer(
                image, predictor.class_names, score_thresh=score_thresh, min_side=MIN_SIDE
            )
            write_picture(output / names[path], draw_found(visualizer, found))
            drawn += 1
            logger.info("%s: %s", path, _summary(found, predictor.class_names, score_thresh))
    logger.info("drew %d images into %s", drawn, output)
    if unreadable:
        logger.error("%d of %d images could not be read", len(unreadable), len(paths))
        sys.exit(1)


def draw_dataset(
    config: Config, predictor: Predictor | None, output: Path, arguments: argparse.Namespace
) -> None:
    """Draw the annotations of a data set, beside them the detections if there is a model."""
    blocks = config.data.train if arguments.dataset == "train" else config.data.test
    datasets = build_datasets(blocks, f"data.{arguments.dataset}")
    transforms = build_transforms(config.data.train_transforms) if arguments.augmented else []
    data = TrainingData(datasets, transforms, seed=config.seed)
    names = datasets[0].class_names
    count = min(arguments.num_images, len(data))
    for i in range(count):
        sample = data[SamplePosition(i, i)]
        if isinstance(sample, str):
            raise DataError(sample)
        # A transform may leave float32; what it rounds to is what can be seen.
        image = sample["image"].round().clamp(0, 255).to(torch.uint8)
        visualizer = Visualizer(
            image, names, score_thresh=arguments.score_thresh, min_side=MIN_SIDE
        )
        picture: np.ndarray = draw_truth(visualizer, sample)
        if predictor is not None:
            picture = draw_beside_truth(visualizer, sample, predictor(image))
        write_picture(output / f"{i:05d}_{Path(sample['file_name']).stem}.jpg", picture)
    logger.info("drew %d of the %d images of data.%s into %s", count, len(data),
                arguments.dataset, output)  # fmt: skip


def find_images(inputs: list[str]) -> list[Path]:
    """The images that files, folders and patterns name, each once, in their order.

    Raises:
        UserError: An input names nothing.
    """
    found: dict[Path, Path] = {}
    for entry in inputs:
        paths = sorted(_expand(entry))
        if not paths:
            raise UserError(
                f"--input {entry}: there is no such file, and no image ({', '.join(EXTENSIONS)}) "
                "in such a folder or of such a pattern"
            )
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _expand(entry: str) -> Iterator[Path]:
    path = Path(entry)
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
    else:
        yield from (Path(p) for p in glob.glob(entry, recursive=True) if Path(p).is_file())


def _picture_names(paths: list[Path]) -> dict[Path, str]:
    """A file name for each picture; images of the same name in other folders get a number."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = f"{path.stem}.jpg", 2
        while name in taken:
            name, number = f"{path.stem}_{number}.jpg", number + 1
        taken.add(name)
        names[path] = name
    return names


def _summary(found: Found, class_names: tuple[str, ...], score_thresh: float) -> str:
    if isinstance(found, torch.Tensor):
        best = found.argsort(descending=True)[:3].tolist()
        return ", ".join(f"{class_names[k]} {float(found[k]):.2f}" for k in best)
    shown = found[found.scores >= score_thresh]
    counts: dict[str, int] = {}
    for index in shown.pred_classes.tolist():
        counts[class_names[index]] = counts.get(class_names[index], 0) + 1
    listed = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
    return f"{listed} (score >= {score_thresh:g})"
