"""Whole models, one a file; importing this package registers them."""

from .retinanet import RetinaNet

__all__ = ["RetinaNet"]
