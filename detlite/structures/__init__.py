"""The containers that travel between parts."""

from .batch_context import ImageExtents, current_extents, image_extents
from .batch_share import BatchShare
from .image_list import ImageList
from .instances import Instances
from .shape_spec import ShapeSpec

__all__ = [
    "BatchShare",
    "ImageExtents",
    "ImageList",
    "Instances",
    "ShapeSpec",
    "current_extents",
    "image_extents",
]
