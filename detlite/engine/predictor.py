"""Detect objects on images with a trained model."""

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import inference_weights, load_checkpoint, load_weights
from ..config.loader import parse_config
from ..data import build_transforms, read_image, transform_sample
from ..modeling import build_meta_arch
from ..structures import Instances
from .build import select_device
from .trainer import autocast

ImageLike = np.ndarray | Tensor | str | Path


class Predictor:
    """A model from a checkpoint of detlite, which needs nothing else.

    Args:
        weights: A checkpoint, as a path or a URL.
        device: "auto" takes a GPU if there is one.
        batch_size: Images at a time.
        trust_imports: Run the Python files that the checkpoint's config imports, for a model with
            components of a project.

    Attributes:
        config: The config that the model was trained with.
        model: The model.
        class_names: The names of its classes.

    Raises:
        CheckpointError: The file cannot be read, or is no checkpoint of detlite.
        ConfigError: Its config needs components that are not there.
    """

    def __init__(
        self,
        weights: str | PathLike[str],
        *,
        device: str = "auto",
        batch_size: int = 1,
        trust_imports: bool = False,
    ) -> None:
        checkpoint = load_checkpoint(weights)
        self.config = parse_config(
            checkpoint["config"], f"the config within {weights}", trust_imports=trust_imports
        )
        self.class_names: tuple[str, ...] = tuple(checkpoint["class_names"])
        self.device = select_device(device)
        self.model = build_meta_arch(self.config.model, self.class_names)
        load_weights(self.model, inference_weights(checkpoint), str(weights))
        self.model.to(self.device).eval()
        self.transforms = build_transforms(self.config.data.test_transforms)
        self.batch_size = batch_size

    @overload
    def __call__(self, images: ImageLike) -> Instances: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Sequence[ImageLike]) -> list[Instances]: ...
    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> Instances | list[Instances]:
        """Detect objects.

        Args:
            images: One or several: paths, (H, W, 3) uint8 RGB arrays or (3, H, W) uint8 tensors.

        Returns:
            For each image pred_boxes (D, 4), scores (D,) and pred_classes (D,) by falling score,
            in the image's own pixels, on the CPU.

        Raises:
            DataError: A file cannot be read.
            ValueError: An array or tensor is no image.
        """
        if isinstance(images, ImageLike):
            return next(self.stream([images]))
        return list(self.stream(images))

    def stream(self, images: Iterable[ImageLike]) -> Iterator[Instances]:
        """Detect objects on any number of images, ``batch_size`` at a time, in their order."""
        batch: list[dict[str, Any]] = []
        for image in images:
            batch.append(self._sample(image))
            if len(batch) == self.batch_size:
                yield from self._run(batch)
                batch = []
        if batch:
            yield from self._run(batch)

    def _run(self, batch: list[dict[str, Any]]) -> Iterator[Instances]:
        with torch.inference_mode(), autocast(self.device, self.config.test.precision):
            for output in self.model(batch):
                yield output["instances"].to("cpu")

    def _sample(self, image: ImageLike) -> dict[str, Any]:
        pixels = as_image_tensor(image)
        height, width = pixels.shape[-2:]
        record = {
            "image": pixels,
            "boxes": torch.zeros(0, 4),
            "classes": torch.zeros(0, dtype=torch.int64),
            "file_name": str(image) if isinstance(image, str | Path) else "",
            "image_id": 0,
            "height": height,
            "width": width,
        }
        return transform_sample(record, self.transforms)


def as_image_tensor(image: ImageLike) -> Tensor:
    """An image of any form as a uint8 RGB tensor (3, H, W).

    Raises:
        DataError: A file cannot be read.
        ValueError: An array or tensor is no image.
    """
    if isinstance(image, str | Path):
        return read_image(str(image))
    axis = 0 if isinstance(image, Tensor) else 2
    right = "(3, H, W) uint8 tensor" if axis == 0 else "(H, W, 3) uint8 array"
    if image.ndim != 3 or image.shape[axis] != 3 or "uint8" not in str(image.dtype):
        raise ValueError(
            f"an image is a path or an RGB {right}, got {tuple(image.shape)} {image.dtype}"
        )
    if isinstance(image, Tensor):
        return image.cpu()
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
