"""Backbones, one idea a file; importing this package registers them."""

from .resnet import ResNet
from .timm_backbone import TimmBackbone
from .torchvision_backbone import TorchvisionBackbone

__all__ = ["ResNet", "TimmBackbone", "TorchvisionBackbone"]
