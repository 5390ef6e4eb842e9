"""The data sets that a config can name."""

from .coco import CocoDetection
from .shapes import Shapes
from .voc import VocDetection

__all__ = ["CocoDetection", "Shapes", "VocDetection"]
