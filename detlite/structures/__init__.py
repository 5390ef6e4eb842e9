"""The containers that travel between parts."""

from .image_list import ImageList
from .instances import Instances
from .shape_spec import ShapeSpec

__all__ = ["ImageList", "Instances", "ShapeSpec"]
