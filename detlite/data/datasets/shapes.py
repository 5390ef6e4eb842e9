"""Shapes: a data set that is drawn on the fly, for a first run without any download."""

from typing import Annotated

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from ...errors import DataError
from ...ranges import BatchSize, Fraction, NonNegativeInt, Pixels, PositiveLayers
from ..detection_dataset import DetectionDataset
from ..registries import DATASET_REGISTRY
from .shape_drawing import CLASS_NAMES, Layout, draw_image, place_shapes


@DATASET_REGISTRY.register
class Shapes(DetectionDataset):
    """Coloured shapes on textured ground; the same arguments always give the same images.

    Boxes are tight around what would be seen of a shape if no later one lay over it. Image ids are
    1 to ``num_images``; image i is the same whatever ``num_images`` is.

    Args:
        num_images: Number of images.
        seed: Seed of the data set; two seeds give unrelated images.
        image_size: Height and width in pixels.
        num_classes: How many of circle, triangle, cross, square, star and ring appear.
        max_objects: Largest number of shapes in an image.
        size_range: Smallest and largest diameter, in parts of the shorter side of the image.
        max_cover: Largest part of the smaller of two shapes that they may share.
        empty_fraction: Part of the images that show no shape.
        title: The name of the data set in log lines and results; ``shapes_<seed>`` if empty.
    """

    def __init__(
        self,
        *,
        num_images: BatchSize,
        seed: NonNegativeInt = 0,
        image_size: tuple[Pixels, Pixels] = (128, 128),
        num_classes: Annotated[int, Meta(ge=1, le=len(CLASS_NAMES))] = 3,
        max_objects: PositiveLayers = 6,
        size_range: tuple[Fraction, Fraction] = (0.12, 0.6),
        max_cover: Fraction = 0.2,
        empty_fraction: Fraction = 0.025,
        title: str = "",
    ) -> None:
        if not 1 <= num_classes <= len(CLASS_NAMES):
            raise DataError(f"num_classes must be 1 to {len(CLASS_NAMES)}, got {num_classes}")
        smallest, largest = size_range
        if not 0 < smallest <= largest <= 1:
            raise DataError(
                f"size_range must be two rising numbers in (0, 1], got {list(size_range)}"
            )
        height, width = image_size
        self.seed = seed
        self.layout = Layout(
            (height, width),
            num_classes,
            max_objects,
            (smallest, largest),
            max_cover,
            empty_fraction,
        )
        placed = [place_shapes(seed, i, self.layout) for i in range(num_images)]
        corners = np.array([shape.box for shapes in placed for shape in shapes]).reshape(-1, 4)
        super().__init__(
            folder=f"shapes_{seed}",
            name=title or f"shapes_{seed}",
            categories={name: k + 1 for k, name in enumerate(CLASS_NAMES[:num_classes])},
            image_ids=range(1, num_images + 1),
            file_names=[f"{i + 1:06d}.png" for i in range(num_images)],
            sizes=[(height, width)] * num_images,
            box_images=np.repeat(np.arange(num_images), [len(shapes) for shapes in placed]),
            boxes_xywh=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
            classes=[shape.class_index for shapes in placed for shape in shapes],
        )

    def read_image(self, i: int) -> Tensor:
        """Draw image i.

        Returns:
            (3, H, W) uint8 RGB.
        """
        shapes = place_shapes(self.seed, i, self.layout)
        image = draw_image(self.seed, i, shapes, self.layout.image_size)
        return torch.from_numpy(image).permute(2, 0, 1)
