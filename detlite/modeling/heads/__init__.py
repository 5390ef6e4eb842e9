"""Heads, one a file; importing this package registers them."""

from .fcos_head import FCOSHead
from .retinanet_head import RetinaNetHead

__all__ = ["FCOSHead", "RetinaNetHead"]
