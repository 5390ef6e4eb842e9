"""Backbones, one idea a file; importing this package registers them."""

from .resnet import ResNet

__all__ = ["ResNet"]
