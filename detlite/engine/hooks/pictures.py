"""Pictures of what the trained model sees."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...ranges import Fraction, PositiveInt
from ...structures import Instances
from ...visualization import Visualizer, make_grid, write_picture
from ..hook_base import HookBase
from ..registries import HOOK_REGISTRY
from ..trainer import Trainer, autocast

logger = logging.getLogger(__name__)


@HOOK_REGISTRY.register
class PredictionPictures(HookBase):
    """At the end draws test images, ground truth beside prediction, into ``pictures``.

    One file an image, and all of them on a sheet, ``pictures.jpg``.

    Args:
        test_loaders: The test data; the pictures are the first images of the first data set.
        output_dir: Folder of the run.
        num_images: How many.
        score_thresh: Detections below are not drawn.
        columns: Pictures in a row of the sheet.
    """

    def __init__(
        self,
        *,
        test_loaders: Sequence[Any],
        output_dir: str,
        num_images: PositiveInt = 8,
        score_thresh: Fraction = 0.5,
        columns: PositiveInt = 2,
    ) -> None:
        self.test_loaders = test_loaders
        self.folder = Path(output_dir) / "pictures"
        self.num_images = num_images
        self.score_thresh = score_thresh
        self.columns = columns

    def after_train(self, trainer: Trainer) -> None:
        """Predict, draw, write."""
        if not self.test_loaders:
            return
        loader = self.test_loaders[0]
        dataset, data = loader.dataset, loader.loader.dataset
        pictures = []
        trainer.model.eval()
        for i in range(min(self.num_images, len(data))):
            sample = data[i]
            with (
                torch.inference_mode(),
                trainer.inference_weights(),
                autocast(trainer.device, trainer.precision),
            ):
                found = trainer.model([sample])[0]["instances"]
            original = dataset[i]
            truth = Instances(
                (original["height"], original["width"]),
                gt_boxes=original["boxes"],
                gt_classes=original["classes"],
            )
            visualizer = Visualizer(
                original["image"],
                dataset.class_names,
                score_thresh=self.score_thresh,
                min_side=384,
            )
            picture = visualizer.draw_comparison(truth, found)
            pictures.append(picture)
            write_picture(self.folder / f"{Path(original['file_name']).stem}.jpg", picture)
        sheet = self.folder.with_suffix(".jpg")
        write_picture(sheet, make_grid(pictures, self.columns))
        logger.info("drew %d images, see %s", len(pictures), sheet)
