"""Pictures of what a model finds on image files, and of what a data set is annotated with."""

import glob
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config.schema import Config
from ..data import TrainingData, build_datasets, build_transforms, read_as_configured
from ..data.datasets.image_files import IMAGE_SUFFIXES, ImageListing
from ..data.samplers import SamplePosition
from ..errors import DataError, UserError
from ..structures import Instances
from ..visualization import (
    Found,
    Visualizer,
    draw_beside_truth,
    draw_found,
    draw_truth,
    write_picture,
)
from .predictor import Predictor

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"
_CLASSES_TOLD = 5  # of a classifier
_MAX_TOLD = 10
_MAX_STEM_BYTES = 200


@dataclass(frozen=True)
class DrawingOptions:
    """How pictures look.

    Attributes:
        score_thresh: Detections that score less are left out, also of ``predictions.json``.
        style: Further arguments of ``Visualizer``.
    """

    score_thresh: float
    style: Mapping[str, Any]

    def visualizer(self, image: Tensor, class_names: Sequence[str]) -> Visualizer:
        """For an image (3, H, W) uint8 RGB."""
        return Visualizer(image, class_names, score_thresh=self.score_thresh, **self.style)


@dataclass
class DrawnFiles:
    """What became of the image files.

    Attributes:
        drawn: How many were drawn.
        unreadable: By file why it could not be read.
        no_images: Files in the folders that are no images by their suffix.
    """

    drawn: int
    unreadable: dict[Path, str]
    no_images: list[str]


def draw_images(
    predictor: Predictor, inputs: Sequence[str], output: Path, options: DrawingOptions
) -> DrawnFiles:
    """Draw detections on every image that the inputs name, and write them as JSON.

    ``predictions.json`` holds ``class_names``, ``score_thresh``, ``images`` and ``skipped``. An
    image has ``file_name``, ``picture``, ``height``, ``width`` and ``detections``, each with
    ``class``, ``category``, its number from 0, ``score`` and ``bbox``, COCO's x, y, width, height
    in pixels; of a classifier ``classes``, the likeliest ones. It appears when all is done.

    Args:
        predictor: The model.
        inputs: Files, folders and patterns.
        output: The folder of the pictures, which is made.
        options: How they look.

    Raises:
        UserError: An input names nothing, or the output cannot be written.
    """
    check_output_folder(output)
    paths, no_images = find_images(inputs)
    names = _picture_names(paths)
    result = DrawnFiles(0, {}, no_images)
    try:
        with _PredictionsFile(output / PREDICTIONS, predictor, options) as predictions:
            for path, image, found in _predict(predictor, paths, result.unreadable):
                picture = draw_found(options.visualizer(image, predictor.class_names), found)
                write_picture(output / names[path], picture)
                predictions.add(path, names[path], image, found)
                result.drawn += 1
                logger.info("%s: %s", path, _summary(found, predictor.class_names, options))
            predictions.skipped = result.unreadable
    except OSError as error:
        raise UserError(f"cannot write into --output '{output}': {error}") from None
    logger.info("drew %d images into %s, see %s there", result.drawn, output, PREDICTIONS)
    if no_images:
        logger.info("skipped files that are no images (%d): %s", len(no_images), _listed(no_images))
    if result.unreadable:
        logger.error(
            "%d of %d images could not be read: %s",
            len(result.unreadable),
            len(paths),
            _listed([str(path) for path in result.unreadable]),
        )
    return result


def draw_dataset(
    config: Config,
    predictor: Predictor | None,
    output: Path,
    options: DrawingOptions,
    *,
    split: str,
    num_images: int,
    augmented: bool,
) -> None:
    """Draw the annotations of a data set, beside them the detections if there is a model.

    Args:
        config: Has the data set.
        predictor: The model, if any.
        output: The folder of the pictures, which is made.
        options: How they look.
        split: "train" or "test", of ``config.data``.
        num_images: How many images at most.
        augmented: Whether they are drawn after ``data.train_transforms``.

    Raises:
        UserError: The data cannot be read, or the output cannot be written.
    """
    check_output_folder(output)
    blocks = config.data.train if split == "train" else config.data.test
    datasets = build_datasets(blocks, f"data.{split}")
    read_as_configured(datasets, config.data)
    transforms = build_transforms(config.data.train_transforms) if augmented else []
    data = TrainingData(datasets, transforms, seed=config.seed)
    count = min(num_images, len(data))
    for i in range(count):
        sample = data[SamplePosition(i, i)]
        if isinstance(sample, str):
            raise DataError(sample)
        # A transform may leave float32; what it rounds to is what can be seen.
        image = sample["image"].round().clamp(0, 255).to(torch.uint8)
        visualizer = options.visualizer(image, datasets[0].class_names)
        picture: np.ndarray = draw_truth(visualizer, sample)
        if predictor is not None:
            picture = draw_beside_truth(visualizer, sample, predictor(image))
        try:
            write_picture(output / f"{i:05d}_{_stem(Path(sample['file_name']))}.jpg", picture)
        except OSError as error:
            raise UserError(f"cannot write into --output '{output}': {error}") from None
    logger.info("drew %d of the %d images of data.%s into %s", count, len(data), split, output)


def check_output_folder(output: Path) -> None:
    """Raise a UserError if a folder cannot be made of this, before hours are spent."""
    try:
        os.fsencode(output)
        if "\0" in str(output):
            raise ValueError("its name has a NUL")
        existing = next(p for p in (output, *output.absolute().parents) if os.path.lexists(p))
        if not existing.is_dir():
            raise UserError(
                f"--output '{output}' must be a folder, but '{existing}' is a file; give another"
            )
    except (OSError, ValueError) as error:
        raise UserError(f"--output {str(output)!r} cannot be a folder: {error}") from None


def find_images(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The images that files, folders and patterns name, each once, in their order.

    Returns:
        The images, and what else lies in the folders.

    Raises:
        UserError: An input names nothing.
    """
    found: dict[str, Path] = {}
    no_images: list[str] = []
    for entry in inputs:
        paths = list(_expand(entry, no_images))
        if not paths:
            raise UserError(
                f"--input {entry}: there is no such file, and no image "
                f"({', '.join(sorted(IMAGE_SUFFIXES))}) in such a folder or of such a pattern"
            )
        for path in paths:
            found.setdefault(os.path.realpath(path), path)
    return list(found.values()), no_images


def _expand(entry: str, no_images: list[str]) -> Iterator[Path]:
    if os.path.isdir(entry):
        listing = ImageListing(entry)
        yield from (Path(entry) / name for name in listing.under())
        no_images += [os.path.join(entry, name) for name in listing.skipped]
    elif os.path.lexists(entry):
        yield Path(entry)
    else:
        yield from (Path(p) for p in sorted(glob.glob(entry, recursive=True)) if os.path.isfile(p))


def _predict(
    predictor: Predictor, paths: list[Path], unreadable: dict[Path, str]
) -> Iterator[tuple[Path, Tensor, Found]]:
    """Each image that can be read, with what is found on it; ``batch_size`` are held at a time."""
    for begin in range(0, len(paths), predictor.batch_size):
        images = {}
        for path in paths[begin : begin + predictor.batch_size]:
            try:
                images[path] = predictor.reader.read(path)
            except DataError as error:
                unreadable[path] = str(error)
                logger.error("%s", error)
        found = predictor.stream(images.values())
        yield from ((*item, each) for item, each in zip(images.items(), found, strict=True))


class _PredictionsFile:
    """``predictions.json``, a line an image, under another name until it is complete."""

    def __init__(self, path: Path, predictor: Predictor, options: DrawingOptions) -> None:
        self.path, self.class_names, self.options = path, predictor.class_names, options
        self.unfinished = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        self.skipped: Mapping[Path, str] = {}
        self.empty = True

    def __enter__(self) -> "_PredictionsFile":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.unfinished, "w", encoding="utf-8")
        names, thresh = json.dumps(list(self.class_names)), self.options.score_thresh
        self.file.write(f'{{"class_names": {names},\n"score_thresh": {thresh},\n"images": [')
        return self

    def add(self, path: Path, picture: str, image: Tensor, found: Found) -> None:
        """Add an image (3, H, W)."""
        height, width = image.shape[1:]
        entry = {"file_name": str(path), "picture": picture, "height": height, "width": width}
        self.file.write("\n" if self.empty else ",\n")
        self.file.write(json.dumps({**entry, **self._found(found)}))
        self.empty = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                skipped = [{"file_name": str(p), "reason": r} for p, r in self.skipped.items()]
                self.file.write(f'\n],\n"skipped": {json.dumps(skipped)}}}\n')
            self.file.close()
            if kind is None:
                os.replace(self.unfinished, self.path)
        finally:
            self.unfinished.unlink(missing_ok=True)

    def _found(self, found: Found) -> dict[str, Any]:
        names = self.class_names
        if isinstance(found, Tensor):
            best = found.argsort(descending=True)[:_CLASSES_TOLD].tolist()
            classes = [
                {"class": names[k], "category": k, "score": round(float(found[k]), 5)} for k in best
            ]
            return {"classes": classes}
        shown = found[found.scores >= self.options.score_thresh]
        columns = (shown.pred_boxes, shown.scores, shown.pred_classes)
        return {
            "detections": [
                {
                    "class": names[k],
                    "category": k,
                    "score": round(score, 5),
                    "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                }
                for (x1, y1, x2, y2), score, k in zip(*(c.tolist() for c in columns), strict=True)
            ]
        }


def _picture_names(paths: list[Path]) -> dict[Path, str]:
    """A file name for each picture; images of the same name in other folders get a number."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        stem = _stem(path)
        name, number = f"{stem}.jpg", 2
        while name in taken:
            name, number = f"{stem}_{number}.jpg", number + 1
        taken.add(name)
        names[path] = name
    return names


def _stem(path: Path) -> str:
    return os.fsdecode(os.fsencode(path.stem)[:_MAX_STEM_BYTES])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_TOLD} more" if len(names) > _MAX_TOLD else ""
    return ", ".join(names[:_MAX_TOLD]) + more


def _summary(found: Found, class_names: Sequence[str], options: DrawingOptions) -> str:
    if isinstance(found, Tensor):
        best = found.argsort(descending=True)[:3].tolist()
        return ", ".join(f"{class_names[k]} {float(found[k]):.2f}" for k in best)
    assert isinstance(found, Instances)
    shown = found[found.scores >= options.score_thresh]
    counts: dict[str, int] = {}
    for index in shown.pred_classes.tolist():
        counts[class_names[index]] = counts.get(class_names[index], 0) + 1
    listed = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
    return f"{listed} (score >= {options.score_thresh:g})"
