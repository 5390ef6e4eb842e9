"""Heads, one idea a file; importing this package registers them."""

from .retinanet_head import RetinaNetHead

__all__ = ["RetinaNetHead"]
