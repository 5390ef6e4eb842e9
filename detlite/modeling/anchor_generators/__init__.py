"""Anchor generators, one idea a file; importing this package registers them."""

from .grid import GridAnchorGenerator

__all__ = ["GridAnchorGenerator"]
