"""Pictures of what the trained model sees."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data import transform_sample
from ...ranges import Fraction, NonNegativeInt, PositiveInt
from ...utils.printable import printable
from ...visualization import (
    Visualizer,
    draw_beside_truth,
    found_in,
    make_grid,
    write_picture,
)
from ..hook_base import HookBase
from ..precision import autocast
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer
from .evaluation import untouched

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class PredictionPictures(HookBase):
    """Draws test images, ground truth beside prediction, into ``pictures``; the last ones stay.

    One file an image, and all of them on a sheet, ``pictures.jpg``. TensorBoard, Weights & Biases
    and MLflow get each of them.

    Args:
        test_loaders: The test data; the pictures are the first images of the first data set, of
            image classes some from all over it.
        output_dir: Folder of the run.
        num_images: How many.
        score_thresh: Detections below are not drawn.
        columns: Pictures in a row of the sheet.
        period: Iterations between pictures; null: with every evaluation; 0: at the end only.
    """

    def __init__(
        self,
        *,
        test_loaders: Sequence[Any],
        output_dir: str,
        num_images: PositiveInt = 8,
        score_thresh: Fraction = 0.5,
        columns: PositiveInt = 2,
        period: NonNegativeInt | None = None,
    ) -> None:
        self.test_loaders = test_loaders
        self.folder = Path(output_dir) / "pictures"
        self.num_images = num_images
        self.score_thresh = score_thresh
        self.columns = columns
        self.period = period

    def before_step(self, trainer: Trainer) -> None:
        """Forget the pictures of the step before, which the writers have had."""
        trainer.pictures = {}

    def after_step(self, trainer: Trainer) -> None:
        """Draw where it is due, for the writers behind this hook and into files."""
        if not self.test_loaders or not self._is_due(trainer):
            return
        with untouched(trainer.model), trainer.inference_weights():
            trainer.model.eval()
            trainer.pictures = self._draw(trainer)
        try:
            for name, picture in trainer.pictures.items():
                write_picture(self.folder / f"{name}.jpg", picture)
            sheet = self.folder.with_suffix(".jpg")
            write_picture(sheet, make_grid(list(trainer.pictures.values()), self.columns))
        except OSError as error:
            logger.warning("the pictures cannot be written: %s", error)
            return
        logger.info("drew %d images, see %s", len(trainer.pictures), sheet)

    def _is_due(self, trainer: Trainer) -> bool:
        done = trainer.iter + 1
        if self.period is None:
            return trainer.is_last_step or trainer.results_iter == done
        return trainer.is_last_step or bool(self.period and done % self.period == 0)

    def _draw(self, trainer: Trainer) -> dict[str, np.ndarray]:
        """Pictures (H, W, 3) uint8 RGB by the name of the image's file."""
        loader = self.test_loaders[0]
        dataset, data = loader.dataset, loader.loader.dataset
        pictures = {}
        count = min(self.num_images, len(data))
        # Class folders follow one another; the first images would be of one class.
        step = len(data) // count if dataset.task == "classification" else 1
        for i in range(0, count * step, step):
            sample = data[i]
            with torch.inference_mode(), autocast(trainer.device, trainer.precision):
                found = found_in(trainer.model([sample])[0])
            # Without the transforms, at the size to which the model has scaled what it found.
            original = transform_sample(dataset[i], [])
            visualizer = Visualizer(
                original["image"],
                dataset.class_names,
                score_thresh=self.score_thresh,
                min_side=384,
            )
            # Of files and, for writers such as TensorBoard, of tags.
            name = printable(Path(original["file_name"]).stem)
            pictures[f"{name}_{i}" if name in pictures else name] = draw_beside_truth(
                visualizer, original, found
            )
        return pictures
