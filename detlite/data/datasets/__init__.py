"""The data sets that a config can name."""

from .coco import CocoDetection
from .image_folder import ImageFolder
from .imagenet import ImageNet
from .shapes import Shapes
from .voc import VocDetection

__all__ = ["CocoDetection", "ImageFolder", "ImageNet", "Shapes", "VocDetection"]
